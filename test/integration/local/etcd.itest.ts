import { existsSync } from 'node:fs';
import t from 'tap';
import { isEtcdHealthy, waitForEtcd } from '../../../bin/local/etcd-member.js';
import { TestEtcd } from '../../support/etcd.js';

async function putAndGet(endpoint: string, value: string): Promise<string> {
  const key = Buffer.from('k').toString('base64');
  const post = async (path: string, body: unknown): Promise<{ kvs?: { value: string }[] }> => {
    const response = await fetch(endpoint + path, { method: 'POST', body: JSON.stringify(body) });
    return (await response.json()) as { kvs?: { value: string }[] };
  };
  await post('/v3/kv/put', { key, value: Buffer.from(value).toString('base64') });
  const { kvs } = await post('/v3/kv/range', { key });
  return Buffer.from(kvs?.[0]?.value ?? '', 'base64').toString();
}

t.test(
  'one member starts, serves, keeps its data over a kill, and leaves nothing behind',
  async (t) => {
    const pids: number[] = [];
    let folder = '';
    await t.test('while it runs', async (t) => {
      const etcd = await TestEtcd.start(t);
      const [member] = etcd.members;
      if (member === undefined) throw new Error('no member');
      folder = member.spec.dataDir;
      t.equal(await putAndGet(member.endpoint, 'before'), 'before');
      await member.kill();
      t.equal(await isEtcdHealthy(member.endpoint), false);
      await member.start();
      pids.push(member.pid ?? 0);
      const key = Buffer.from('k').toString('base64');
      const response = await fetch(`${member.endpoint}/v3/kv/range`, {
        method: 'POST',
        body: JSON.stringify({ key }),
      });
      const body = (await response.json()) as { kvs?: { value: string }[] };
      t.equal(Buffer.from(body.kvs?.[0]?.value ?? '', 'base64').toString(), 'before');
    });
    for (const pid of pids) {
      t.throws(() => process.kill(pid, 0), { code: 'ESRCH' }, 'the process is gone after the test');
    }
    t.equal(existsSync(folder), false, 'its data is gone after the test');
  },
);

t.test(
  'three members elect another leader when the leader is paused, and take it back',
  async (t) => {
    const etcd = await TestEtcd.start(t, { members: 3 });
    const first = await etcd.leader();
    first.pause();
    const others = etcd.members.filter((member) => member !== first);
    await waitForEtcd(others.map((member) => member.endpoint));
    const [other] = others;
    if (other === undefined) throw new Error('no other member');
    t.equal(await putAndGet(other.endpoint, 'without the first'), 'without the first');
    first.resume();
    await waitForEtcd(etcd.endpoints);
    t.not((await etcd.leader()).name, first.name);
  },
);
