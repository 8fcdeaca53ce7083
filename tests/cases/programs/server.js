// What Node.js can have going on at once; every GET is answered with how far everything is.
const http = require('http'), fs = require('fs'), { fork, spawn } = require('child_process');
const { Worker, isMainThread, workerData } = require('worker_threads');

if (process.argv[2] === 'child') {
  process.on('message', n => process.send(n + 1));
} else if (!isMainThread) {
  const cells = new Int32Array(workerData);
  setInterval(() => Atomics.add(cells, 0, 1), 5);
} else {
  const buffer = new SharedArrayBuffer(4);
  new Worker(__filename, { workerData: buffer });
  const cells = new Int32Array(buffer);
  let ticks = 0, requests = 0, hups = 0;
  setInterval(() => ticks++, 10);
  process.on('SIGHUP', () => hups++);
  const child = fork(__filename, ['child']);
  const cat = spawn('/usr/bin/busybox', ['cat']);
  const once = (emitter, event, act) => new Promise(resolve => { emitter.once(event, resolve); act(); });
  const server = http.createServer(async (request, response) => {
    const text = JSON.stringify({
      requests: ++requests, ticks, hups, worker: Atomics.load(cells, 0),
      child: await once(child, 'message', () => child.send(requests)),
      pipe: (await once(cat.stdout, 'data', () => cat.stdin.write('line'))).toString(),
      file: (await fs.promises.readFile('/etc/nsswitch.conf', 'utf8')).trim(),
    });
    response.writeHead(200, { 'Content-Length': Buffer.byteLength(text) });
    response.end(text);
  });
  server.keepAliveTimeout = 600000;
  server.listen(8000);
}
