/**
 * Loaded before a TaskManager's own code (`--import`): profiles its main thread, where sockets are served, until the
 * process ends. Slot threads profile themselves.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';

const directory = process.env['BENCH_PROFILES'];
if (directory !== undefined && isMainThread && process.argv[1]?.endsWith('taskmanager.js')) {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 200 });
  session.post('Profiler.start');
  process.on('exit', () => {
    const file = join(directory, `main-thread-${String(process.pid)}.cpuprofile`);
    session.post('Profiler.stop', (error, stopped) => {
      if (error === null) writeFileSync(file, JSON.stringify(stopped.profile));
    });
  });
}
