// ws, the usual library of Node, with bufferutil. Arguments: PORT [--broadcast] [--tls DIRECTORY]
const { WebSocketServer } = require('ws');
const fs = require('fs');
const args = process.argv.slice(2);
const broadcast = args.includes('--broadcast');
const tls = args.includes('--tls') ? args[args.indexOf('--tls') + 1] : null;
const http = tls
  ? require('https').createServer({ key: fs.readFileSync(`${tls}/key.pem`), cert: fs.readFileSync(`${tls}/cert.pem`) })
  : require('http').createServer();
const server = new WebSocketServer({ server: http, perMessageDeflate: false, maxPayload: 0 });
server.on('connection', (ws) => {
  ws.on('error', () => {});
  ws.on('message', (data, binary) => {
    if (!broadcast) ws.send(data, { binary });
    else for (const one of server.clients) one.send(data, { binary });
  });
});
http.listen(+args[0], '127.0.0.1');
