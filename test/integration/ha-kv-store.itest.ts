import t from 'tap';
import { Etcd3 } from 'etcd3';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { kvStoreConformance } from '../conformance/kv-store.js';
import { TestEtcd } from '../support/etcd.js';
import { testEnv } from '../support/test-env.js';

const etcd = await TestEtcd.start(t);
const raw = new Etcd3({ hosts: etcd.endpoints });
t.teardown(() => {
  raw.close();
});

kvStoreConformance(t, 'etcd', {
  open: async () => new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints }),
  pass: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  compact: async () => {
    const { header } = await raw.kv.range({ key: Buffer.from('x') });
    await raw.kv.compact({ revision: header.revision, physical: true });
  },
  // etcd's least: ceil(1.5 election timeouts).
  leaseTtlMs: 1_000,
});
