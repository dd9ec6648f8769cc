/** The JobManager program on real etcd: leads, resigns on SIGTERM, and says in one line why it cannot start. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { withTimeout } from '../../../lib/base/abort.js';
import { TestEtcd } from '../../support/etcd.js';
import { testEnv } from '../../support/test-env.js';

t.setTimeout(120_000);

const entry = fileURLToPath(new URL('../../../bin/jobmanager.js', import.meta.url));
const env = testEnv();

interface LogLine {
  readonly event?: string;
  readonly restAddress?: string;
}

class Program {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  stderr = '';
  #listeners: (() => void)[] = [];

  constructor(t: Test, settings: Readonly<Record<string, string>>) {
    const definitions = Object.entries(settings).flatMap(([key, value]) => [
      '-D',
      `${key}=${value}`,
    ]);
    this.child = spawn(process.execPath, [entry, ...definitions], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.teardown(() => this.child.kill('SIGKILL'));
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
      for (const listener of this.#listeners) listener();
    });
    this.exited = once(this.child, 'exit').then(([code]) => code as number | null);
  }

  exitCode(): Promise<number | null> {
    return withTimeout(env.clock, 50_000, 'the process', this.exited);
  }

  /** The log goes to standard error when no directory is configured. */
  event(name: string): Promise<LogLine> {
    const found = new Promise<LogLine>((resolve) => {
      const look = (): void => {
        const line = this.lines().find(({ event }) => event === name);
        if (line !== undefined) resolve(line);
      };
      this.#listeners.push(look);
      look();
    });
    return withTimeout(env.clock, 30_000, `event ${name}; it said ${this.stderr}`, found);
  }

  lines(): LogLine[] {
    return this.stderr
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as LogLine);
  }

  /** What is meant for people. */
  messages(): string[] {
    return this.stderr.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  }
}

async function directory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'millrace-jm-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

const settings = (endpoint: string, storageDir: string): Record<string, string> => ({
  'high-availability.type': 'etcd',
  'high-availability.etcd.endpoints': endpoint,
  'high-availability.storageDir': storageDir,
  'rest.port': '0',
});

t.test('it leads, and a second one leads as soon as the first is asked to stop', async (t) => {
  const etcd = await TestEtcd.start(t);
  const storage = await directory(t);
  const all = settings(etcd.endpoints[0] ?? '', storage);
  const first = new Program(t, all);
  const { restAddress } = await first.event('jobmanager.ready');
  await first.event('leader.active');
  const second = new Program(t, all);
  const ready = await second.event('jobmanager.ready');
  const overview = await fetch(`${ready.restAddress ?? ''}/v1/overview`);
  t.match(
    await overview.json(),
    { taskmanagers: 0, 'jobs-running': 0 },
    'a standby answers for the leader',
  );
  const began = env.clock.now();
  first.child.kill('SIGTERM');
  await second.event('leader.active');
  t.ok(env.clock.now() - began < 2_500, 'without waiting for the lease to end');
  t.equal(await first.exitCode(), 0);
  t.not(restAddress, ready.restAddress);

  const other = await directory(t);
  const stranger = new Program(t, settings(etcd.endpoints[0] ?? '', other));
  t.not(await stranger.exitCode(), 0, 'one cluster with two storage directories is refused');
  t.match(stranger.messages().at(-1), /CLUSTER_MISMATCH/);
});

t.test('faults at the start are one clear message and an exit code', async (t) => {
  const storage = await directory(t);
  const server = createServer();
  server.listen(0, 'localhost');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const none = { 'rest.port': String(port), 'high-availability.storageDir': storage };
  const busy = new Program(t, none);
  t.equal(await busy.exitCode(), 3);
  t.match(busy.messages(), [new RegExp(`jobmanager: PORT_IN_USE: .*${String(port)}`)]);

  const typo = new Program(t, { 'rest.prot': '1' });
  t.equal(await typo.exitCode(), 2);
  t.match(typo.stderr, /rest\.prot.*did you mean rest\.port/);

  const unreachable = new Program(t, settings('http://127.0.0.1:1', storage));
  t.equal(await unreachable.exitCode(), 3);
  t.match(
    unreachable.messages().at(-1),
    /ETCD_UNAVAILABLE: etcd at http:\/\/127\.0\.0\.1:1 did not answer/,
  );
});
