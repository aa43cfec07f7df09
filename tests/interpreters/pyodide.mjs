// Runs pytest in Pyodide: node pyodide.mjs PYODIDE WHEELS SOURCE ARGUMENTS...
// PYODIDE is the folder of the npm package, WHEELS one of pure wheels, SOURCE that of the project.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

// Node would print the source line, which is all of Pyodide.
process.on("uncaughtException", (error) => {
  console.error(String(error.message ?? error).slice(-8000));
  process.exit(1);
});

const [folder, wheels, source, ...words] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(folder, "pyodide.mjs")));
const pyodide = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });
const extractDir = pyodide.runPython("import sysconfig; sysconfig.get_path('purelib')");
for (const name of fs.readdirSync(wheels)) {
  pyodide.unpackArchive(new Uint8Array(fs.readFileSync(path.join(wheels, name))), "wheel", { extractDir });
}
pyodide.FS.mkdirTree("/source");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: source }, "/source");
pyodide.globals.set("words", pyodide.toPy(words));
process.exitCode = pyodide.runPython(`
import os
import pytest
import wsfast
assert wsfast.IMPLEMENTATION == "python"
os.chdir("/source")
int(pytest.main(list(words)))
`);
