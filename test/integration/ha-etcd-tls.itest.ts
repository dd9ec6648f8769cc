import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { EtcdKvStore, type EtcdKvStoreOptions } from '../../ha/etcd/etcd-kv-store.js';
import { LeaseKeeper } from '../../ha/lease-keeper.js';
import { encodeText, type KvStore } from '../../ha/kv-store.js';
import { StateWatch } from '../../ha/state-watch.js';
import type { Env } from '../../lib/base/env.js';
import type { MillraceError } from '../../lib/base/errors.js';
import { TestAuthority, type CertificateFiles } from '../support/certificates.js';
import { TestEtcd } from '../support/etcd.js';
import { testEnv } from '../support/test-env.js';

function errorOf(work: () => Promise<unknown>): Promise<MillraceError | undefined> {
  return Promise.resolve()
    .then(work)
    .then(
      () => undefined,
      (error: unknown) => error as MillraceError,
    );
}

const put = (kv: KvStore, key: string, value = key): Promise<unknown> =>
  kv.txn({ compare: [], then: [{ op: 'put', key, value: encodeText(value) }] });

function open(t: Test, options: EtcdKvStoreOptions, env: Env = testEnv()): EtcdKvStore {
  const kv = new EtcdKvStore(env, { callTimeoutMs: 2_000, ...options });
  t.teardown(() => kv.close());
  return kv;
}

const count = (env: Env, name: string): number =>
  env.metrics.samples().find((sample) => sample.name === name)?.value ?? 0;

const folder = mkdtempSync(join(tmpdir(), 'millrace-tls-'));
t.teardown(() => {
  rmSync(folder, { recursive: true });
});
const ca = await TestAuthority.create(folder);
const server = await ca.issue('server', 'etcd', ['127.0.0.1']);

t.test('a connection is encrypted, and a foreign authority is refused by name', async (t) => {
  const etcd = await TestEtcd.start(t, { tls: server });
  const { endpoints } = etcd;
  const kv = open(t, { endpoints, ssl: { caFile: ca.caFile } });
  await put(kv, 'a');
  t.equal((await kv.members())[0]?.isHealthy, true);

  const other = await TestAuthority.create(folder, 'other');
  const foreign = open(t, { endpoints, ssl: { caFile: other.caFile } });
  const refused = await errorOf(() => put(foreign, 'a'));
  t.equal(refused?.code, 'ETCD_UNAVAILABLE', 'nothing was sent');
  t.match(refused?.message, /certificate|issuer/);
  t.match(refused?.message, 'high-availability.etcd.ssl');
  const untrusted = open(t, { endpoints });
  t.match((await errorOf(() => untrusted.get('a')))?.message, 'high-availability.etcd.ssl');
});

t.test('the name in a certificate can be given', async (t) => {
  const named = await ca.issue('named', 'etcd', ['etcd.internal']);
  const { endpoints } = await TestEtcd.start(t, { tls: named });
  const plain = open(t, { endpoints, ssl: { caFile: ca.caFile } });
  t.match((await errorOf(() => plain.get('a')))?.message, /altname/i);
  const kv = open(t, { endpoints, ssl: { caFile: ca.caFile, serverName: 'etcd.internal' } });
  t.equal(await kv.get('a'), undefined);
});

t.test('unusable certificates stop a process before it connects', async (t) => {
  const endpoints = ['https://127.0.0.1:1'];
  const client = await ca.issue('unused', 'client');
  const noPem = join(folder, 'no.pem');
  writeFileSync(noPem, 'text');
  const cases: [EtcdKvStoreOptions, RegExp][] = [
    [{ endpoints, ssl: { caFile: join(folder, 'absent.pem') } }, /ca-file names .*absent.pem/],
    [{ endpoints, ssl: { caFile: noPem } }, /ca-file holds no certificate/],
    [{ endpoints, ssl: { certFile: client.certFile } }, /cert-file is set without .*key-file/],
    [{ endpoints, ssl: { keyFile: client.keyFile } }, /key-file is set without .*cert-file/],
    [
      { endpoints, ssl: { certFile: client.certFile, keyFile: server.keyFile } },
      /not usable: .*mismatch/,
    ],
    [{ endpoints: ['http://127.0.0.1:1'], ssl: { caFile: ca.caFile } }, /write https/],
    [{ endpoints: ['http://a:1', 'https://b:1'] }, /use one of them for all/],
  ];
  for (const [options, message] of cases) {
    const error = await errorOf(() => new EtcdKvStore(testEnv(), options).close());
    t.equal(error?.code, 'CONFIG');
    t.match(error?.message, message);
  }
});

t.test('certificates are renewed while a lease is held and a watch is open', async (t) => {
  const etcd = await TestEtcd.start(t, { tls: { ...server, caFile: ca.caFile } });
  const { endpoints } = etcd;
  const inUse: CertificateFiles = {
    certFile: join(folder, 'in-use.pem'),
    keyFile: join(folder, 'in-use-key.pem'),
  };
  const install = (from: CertificateFiles): void => {
    copyFileSync(from.certFile, inUse.certFile);
    copyFileSync(from.keyFile, inUse.keyFile);
  };
  install(await ca.issue('first', 'client'));
  const anonymous = open(t, { endpoints, ssl: { caFile: ca.caFile } });
  t.equal((await errorOf(() => anonymous.get('a')))?.code, 'ETCD_UNAVAILABLE', 'none is refused');

  const env = testEnv();
  const ssl = { caFile: ca.caFile, ...inUse };
  const kv = open(t, { endpoints, ssl, sslReloadMs: 50 }, env);
  const events: string[] = [];
  const keeper = new LeaseKeeper(
    env,
    kv,
    { ttlMs: 3_000 },
    {
      onHeld: () => events.push('held'),
      onOverdue: () => events.push('overdue'),
      onLost: () => events.push('lost'),
    },
  );
  keeper.start();
  t.teardown(() => keeper.close());
  const seen: string[] = [];
  const watch = new StateWatch(env, kv, {
    prefix: '/seen/',
    resyncMs: 60_000,
    onState: ({ entries }) => seen.push([...entries.keys()].join()),
  });
  watch.start();
  t.teardown(() => watch.close());
  while (events.length === 0 || seen.length === 0) await sleep(10);

  const next = await ca.issue('next', 'client');
  // Half of it: the key does not fit the certificate yet.
  copyFileSync(next.certFile, inUse.certFile);
  await sleep(200);
  t.equal(count(env, 'etcdCertificateReloads'), 0);
  await put(kv, '/seen/half');
  install(next);
  while (count(env, 'etcdCertificateReloads') === 0) await sleep(10);
  const putUntilSeen = async (key: string): Promise<void> => {
    await put(kv, key);
    while (seen.at(-1)?.includes(key) !== true) await sleep(10);
  };
  await putUntilSeen('/seen/renewed');
  // The member ends all old connections: what is opened anew uses the new certificate.
  await etcd.members[0]!.stop();
  await etcd.members[0]!.start();
  await putUntilSeen('/seen/restarted');
  t.same(events, ['held']);

  install(await (await TestAuthority.create(folder, 'wrong')).issue('wrong-client', 'client'));
  while (count(env, 'etcdCertificateReloads') < 2) await sleep(10);
  const error = await errorOf(() => put(kv, '/seen/refused'));
  t.equal(error?.code, 'ETCD_UNAVAILABLE', 'certificates that fit each other, but nobody trusts');
});
