# platforms: systrap
# timeout: 120

# fs, child processes, network and worker_threads in Node.
cat > /tmp/main.js <<'END'
const fs = require('fs'), net = require('net'), { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execSync, spawn } = require('child_process');
if (!isMainThread) {
  let s = 0; for (let i = 0; i < 1e6; i++) s += i % workerData; parentPort.postMessage(s);
} else (async () => {
  fs.mkdirSync('/tmp/d'); for (let i = 0; i < 100; i++) fs.writeFileSync(`/tmp/d/${i}`, 'x'.repeat(i));
  console.log('fs', fs.readdirSync('/tmp/d').length, (await fs.promises.stat('/tmp/d/50')).size);
  const sums = await Promise.all([3, 5, 7, 11].map(n => new Promise((y, no) => { const w = new Worker(__filename, { workerData: n }); w.on('message', y); w.on('error', no); })));
  console.log('workers', sums);
  console.log('exec', execSync('echo from sh').toString().trim());
  console.log('spawn', await new Promise(y => spawn('sh', ['-c', 'exit 4']).on('exit', y)));
  await new Promise(done => { const s = net.createServer(c => c.pipe(c)).listen(0, '127.0.0.1', () => {
    const c = net.connect(s.address().port, '127.0.0.1'); c.write('echoed'); c.on('data', d => { console.log('net', d.toString()); c.end(); s.close(done); }); }); });
  await new Promise(y => setTimeout(y, 30)); console.log('timer');
  process.on('SIGUSR2', () => { console.log('signal'); process.exit(5); }); process.kill(process.pid, 'SIGUSR2'); setTimeout(() => {}, 5000);
})();
END
node --version
node -e 'console.log([1, 2, 3].map(x => x * 2), require("os").platform())'
node /tmp/main.js; echo "status $?"
