/** JobManager and TaskManager programs with an etcd that wants certificates and passwords, each with its own role. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { TestAuthority } from '../../support/certificates.js';
import { enableAuth } from '../../support/etcd-roles.js';
import { TestEtcd } from '../../support/etcd.js';

t.setTimeout(120_000);

interface Program {
  readonly exited: Promise<number | null>;
  readonly stderr: () => string;
  /** Resolves when its log has the event. */
  readonly logged: (event: string) => Promise<void>;
}

function start(
  t: Test,
  name: 'jobmanager' | 'taskmanager',
  settings: Readonly<Record<string, string>>,
): Program {
  const entry = fileURLToPath(new URL(`../../../bin/${name}.js`, import.meta.url));
  const definitions = Object.entries(settings).flatMap(([key, value]) => ['-D', `${key}=${value}`]);
  const child = spawn(process.execPath, [entry, ...definitions], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  let wake = (): void => undefined;
  child.stderr.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    wake();
  });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  return {
    exited,
    stderr: () => text,
    logged: async (event) => {
      while (!text.includes(`"event":"${event}"`)) {
        if (child.exitCode !== null) throw new Error(`${name} ended:\n${text}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
          child.once('exit', () => {
            resolve();
          });
        });
      }
    },
  };
}

t.test('processes find each other over an etcd with TLS, passwords and roles', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-security-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const ca = await TestAuthority.create(folder);
  const server = await ca.issue('server', 'etcd', ['127.0.0.1']);
  const client = await ca.issue('client', 'client');
  const { endpoints } = await TestEtcd.start(t, { tls: { ...server, caFile: ca.caFile } });
  const credentials = {
    rootCertificate: await readFile(ca.caFile),
    privateKey: await readFile(client.keyFile),
    certChain: await readFile(client.certFile),
  };
  await enableAuth({ hosts: endpoints, credentials }, 'default');
  const settings = (user: string, password = `${user}!`): Record<string, string> => ({
    'high-availability.type': 'etcd',
    'high-availability.storageDir': folder,
    'high-availability.etcd.endpoints': endpoints.join(','),
    'high-availability.etcd.ssl.ca-file': ca.caFile,
    'high-availability.etcd.ssl.cert-file': client.certFile,
    'high-availability.etcd.ssl.key-file': client.keyFile,
    'high-availability.etcd.username': user,
    'high-availability.etcd.password': password,
    'io.tmp.dirs': folder,
    'rest.port': '0',
  });
  const wrong = start(t, 'jobmanager', settings('millrace-jm', 'not-the-password'));
  t.not(await wrong.exited, 0);
  t.match(wrong.stderr(), /does not accept the user \\?"millrace-jm\\?"/);
  t.notMatch(wrong.stderr(), /not-the-password/, 'a password is never logged');

  const tooEarly = start(t, 'taskmanager', settings('millrace-tm'));
  t.not(await tooEarly.exited, 0);
  t.match(
    tooEarly.stderr(),
    /does not allow the user \\?"millrace-tm\\?"/,
    'a TaskManager’s role creates no cluster',
  );

  const jobManager = start(t, 'jobmanager', settings('millrace-jm'));
  await jobManager.logged('leader.active');
  const taskManager = start(t, 'taskmanager', settings('millrace-tm'));
  await taskManager.logged('taskmanager.registered');
  t.notMatch(jobManager.stderr() + taskManager.stderr(), /etcd-refused|millrace-tm!|millrace-jm!/);
});
