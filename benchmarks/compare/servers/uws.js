// uWebSockets (C++) through its binding for Node. Arguments: PORT [--broadcast] [--tls DIRECTORY]
const uWS = require('@btc-vision/uwebsockets.js');
const args = process.argv.slice(2);
const broadcast = args.includes('--broadcast');
const tls = args.includes('--tls') ? args[args.indexOf('--tls') + 1] : null;
const app = tls ? uWS.SSLApp({ key_file_name: `${tls}/key.pem`, cert_file_name: `${tls}/cert.pem` }) : uWS.App();
app.ws('/*', {
  maxPayloadLength: 64 * 1024 * 1024,
  maxBackpressure: 256 * 1024 * 1024,
  compression: uWS.DISABLED,
  idleTimeout: 0,
  open: broadcast ? (ws) => ws.subscribe('all') : undefined,
  message: broadcast ? (ws, message, binary) => app.publish('all', message, binary)
    : (ws, message, binary) => ws.send(message, binary),
}).listen('127.0.0.1', +args[0], (token) => { if (!token) process.exit(1); });
