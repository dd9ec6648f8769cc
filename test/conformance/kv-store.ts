/** The promises of ha/kv-store.ts, run against every implementation. */
import type { Test } from 'tap';
import { hasCode } from '../../lib/base/errors.js';
import {
  decodeText,
  encodeText,
  listPrefix,
  prefixEnd,
  type KvStore,
  type TxnOp,
  type WatchEvent,
} from '../../ha/kv-store.js';
import { codeOf } from '../support/code-of.js';

export interface KvStoreFixture {
  /** A store on a fresh or shared backend; closed by the suite. */
  readonly open: () => Promise<KvStore>;
  /** Lets this much of the store's time pass: waits, or moves a manual clock. */
  readonly pass: (ms: number) => Promise<void>;
  /** Makes all earlier revisions unavailable to watches. */
  readonly compact: () => Promise<void>;
  /** The shortest lease the store grants. */
  readonly leaseTtlMs: number;
}

/** Rejections as values: tap's own matcher compares text. */
const put = (key: string, value = key): TxnOp => ({ op: 'put', key, value: encodeText(value) });

/** Collects the events of a watch and waits for conditions on them. */
function record(kv: KvStore, key: string, rangeEnd: string | undefined, startRevision: number) {
  const events: WatchEvent[] = [];
  let ended: Error | undefined;
  let wake: () => void = () => undefined;
  const watch = kv.watch(
    { key, startRevision, ...(rangeEnd !== undefined && { rangeEnd }) },
    {
      onEvents: (more) => {
        events.push(...more);
        wake();
      },
      onEnd: (error) => {
        ended = error;
        wake();
      },
    },
  );
  const until = async (done: () => boolean): Promise<void> => {
    while (!done()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return {
    watch,
    events,
    count: (n: number) => until(() => events.length >= n),
    end: async () => {
      await until(() => ended !== undefined);
      return ended;
    },
  };
}

export function kvStoreConformance(t: Test, name: string, fixture: KvStoreFixture): void {
  let folder = 0;
  /** A store, and a prefix that no other test uses. */
  const setUp = async (test: Test): Promise<{ kv: KvStore; p: string }> => {
    const kv = await fixture.open();
    test.teardown(() => kv.close());
    folder += 1;
    return { kv, p: `/conformance/${name}/${String(folder)}/` };
  };

  t.test('a put is read back with its revisions, version and without a lease', async (t) => {
    const { kv, p } = await setUp(t);
    t.equal(await kv.get(`${p}a`), undefined);
    const first = await kv.txn({ compare: [], then: [put(`${p}a`, 'one')] });
    const second = await kv.txn({ compare: [], then: [put(`${p}a`, 'two')] });
    t.ok(second.revision > first.revision, 'revisions grow');
    const entry = await kv.get(`${p}a`);
    t.equal(entry && decodeText(entry.value), 'two');
    t.match(entry, {
      key: `${p}a`,
      createRevision: first.revision,
      modRevision: second.revision,
      version: 2,
      leaseId: undefined,
    });
  });

  t.test('a key that is deleted and put again has a new create revision', async (t) => {
    const { kv, p } = await setUp(t);
    await kv.txn({ compare: [], then: [put(`${p}a`)] });
    const before = await kv.get(`${p}a`);
    await kv.txn({ compare: [], then: [{ op: 'delete', key: `${p}a` }] });
    t.equal(await kv.get(`${p}a`), undefined);
    await kv.txn({ compare: [], then: [put(`${p}a`)] });
    const after = await kv.get(`${p}a`);
    t.ok((after?.createRevision ?? 0) > (before?.createRevision ?? Infinity));
    t.equal(after?.version, 1);
  });

  t.test(
    'ranges honour end, limit, order, keysOnly, countOnly and maxCreateRevision',
    async (t) => {
      const { kv, p } = await setUp(t);
      const revisions: number[] = [];
      for (const key of ['c', 'a', 'b']) {
        revisions.push((await kv.txn({ compare: [], then: [put(p + key)] })).revision);
      }
      await kv.txn({ compare: [], then: [put(`${p}a`, 'changed')] });
      const range = { key: p, rangeEnd: prefixEnd(p) };
      const names = async (request: Parameters<KvStore['range']>[0]): Promise<string> =>
        (await kv.range(request)).entries.map((entry) => entry.key.slice(p.length)).join('');
      t.equal(await names(range), 'abc', 'by key');
      t.equal(await names({ ...range, sort: { by: 'create', order: 'descending' } }), 'bac');
      t.equal(await names({ ...range, sort: { by: 'mod', order: 'ascending' } }), 'cba');
      t.equal(await names({ ...range, maxCreateRevision: revisions[1]! }), 'ac');
      t.equal(await names({ key: `${p}b`, rangeEnd: prefixEnd(p) }), 'bc');
      const cut = await kv.range({ ...range, limit: 2 });
      t.match(cut, { more: true, count: 3 });
      t.equal(cut.entries.length, 2);
      const keys = await kv.range({ ...range, keysOnly: true });
      t.same(
        keys.entries.map((entry) => entry.value.length),
        [0, 0, 0],
      );
      t.match(await kv.range({ ...range, countOnly: true }), { count: 3, entries: [] });
      t.match(await kv.range({ key: `${p}zzz` }), { count: 0, entries: [], more: false });
    },
  );

  t.test('a prefix is listed in full over several pages', async (t) => {
    const { kv, p } = await setUp(t);
    const keys = Array.from({ length: 1_100 }, (_, i) => `${p}${String(i).padStart(4, '0')}`);
    for (let i = 0; i < keys.length; i += 100) {
      await kv.txn({ compare: [], then: keys.slice(i, i + 100).map((key) => put(key)) });
    }
    const { entries } = await listPrefix(kv, p);
    t.same(
      entries.map((entry) => entry.key),
      keys,
    );
  });

  t.test('a transaction runs one branch, and answers each of its operations', async (t) => {
    const { kv, p } = await setUp(t);
    const request = {
      compare: [{ target: 'create', key: `${p}a`, op: '=', value: 0 }],
      then: [put(`${p}a`, 'first'), { op: 'get', key: `${p}a` }],
      else: [{ op: 'get', key: `${p}a` }],
    } as const;
    const first = await kv.txn(request);
    t.equal(first.succeeded, true);
    const read = first.results[1];
    t.equal(read?.op === 'get' && decodeText(read.entries[0]!.value), 'first', 'sees its own put');
    const second = await kv.txn(request);
    t.equal(second.succeeded, false);
    t.match(second.results, [{ op: 'get', count: 1 }]);
    const removed = await kv.txn({
      compare: [],
      then: [{ op: 'delete', key: p, rangeEnd: prefixEnd(p) }],
    });
    t.match(removed.results, [{ op: 'delete', deleted: 1 }]);
  });

  t.test('all comparisons must hold, on create revision, mod revision and version', async (t) => {
    const { kv, p } = await setUp(t);
    const key = `${p}a`;
    const { revision } = await kv.txn({ compare: [], then: [put(key)] });
    const holds = async (...compare: Parameters<KvStore['txn']>[0]['compare']): Promise<boolean> =>
      (await kv.txn({ compare, then: [{ op: 'get', key }] })).succeeded;
    t.equal(await holds({ target: 'create', key, op: '=', value: revision }), true);
    t.equal(await holds({ target: 'create', key, op: '!=', value: revision }), false);
    t.equal(await holds({ target: 'mod', key, op: '>', value: revision - 1 }), true);
    t.equal(await holds({ target: 'mod', key, op: '<', value: revision }), false);
    t.equal(await holds({ target: 'version', key, op: '=', value: 1 }), true);
    t.equal(await holds({ target: 'version', key: `${p}none`, op: '=', value: 0 }), true);
    t.equal(
      await holds(
        { target: 'version', key, op: '=', value: 1 },
        { target: 'mod', key, op: '=', value: 0 },
      ),
      false,
    );
  });

  t.test('a comparison over a range holds only when it holds for every key of it', async (t) => {
    const { kv, p } = await setUp(t);
    const first = await kv.txn({ compare: [], then: [put(`${p}b`)] });
    const second = await kv.txn({ compare: [], then: [put(`${p}a`)] });
    const olderThan = async (value: number, key = p): Promise<boolean> => {
      const compare = [{ target: 'create', key, rangeEnd: prefixEnd(p), op: '>', value } as const];
      return (await kv.txn({ compare, then: [] })).succeeded;
    };
    t.equal(await olderThan(first.revision - 1), true);
    t.equal(await olderThan(second.revision - 1), false, 'one key is older');
    t.equal(await olderThan(0, `${p}x`), false, 'an empty range counts as an absent key');
  });

  t.test('transactions nest', async (t) => {
    const { kv, p } = await setUp(t);
    await kv.txn({ compare: [], then: [put(`${p}a`)] });
    const result = await kv.txn({
      compare: [],
      then: [
        {
          op: 'txn',
          compare: [{ target: 'create', key: `${p}a`, op: '=', value: 0 }],
          then: [put(`${p}b`)],
          else: [{ op: 'get', key: `${p}a` }],
        },
      ],
    });
    t.match(result.results, [{ op: 'txn', succeeded: false, results: [{ op: 'get', count: 1 }] }]);
    t.equal(await kv.get(`${p}b`), undefined);
  });

  t.test('a request that can never succeed is ETCD_REJECTED and changes nothing', async (t) => {
    const { kv, p } = await setUp(t);
    const many = Array.from({ length: 129 }, (_, i) => put(`${p}${String(i)}`));
    t.equal(await codeOf(kv.txn({ compare: [], then: many })), 'ETCD_REJECTED', 'too many');
    const twice = [put(`${p}a`), put(`${p}a`, 'other')];
    t.equal(await codeOf(kv.txn({ compare: [], then: twice })), 'ETCD_REJECTED', 'a key twice');
    const value = new Uint8Array(1_700_000);
    const big: TxnOp[] = [{ op: 'put', key: `${p}a`, value }];
    t.equal(await codeOf(kv.txn({ compare: [], then: big })), 'ETCD_REJECTED', 'too large');
    t.match(await kv.range({ key: p, rangeEnd: prefixEnd(p) }), { count: 0 });
  });

  t.test('exactly one of many concurrent creations of a key succeeds', async (t) => {
    const { kv, p } = await setUp(t);
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        kv.txn({
          compare: [{ target: 'create', key: `${p}a`, op: '=', value: 0 }],
          then: [put(`${p}a`, String(i))],
        }),
      ),
    );
    t.equal(results.filter((result) => result.succeeded).length, 1);
  });

  t.test('a watch delivers every change from its start revision on, in order', async (t) => {
    const { kv, p } = await setUp(t);
    const { revision } = await kv.txn({ compare: [], then: [put(`${p}a`, '1')] });
    await kv.txn({ compare: [], then: [put(`${p}b`, '2')] });
    const seen = record(kv, p, prefixEnd(p), revision + 1);
    await kv.txn({ compare: [], then: [put(`${p}a`, '3'), put(`${p}c`, '3')] });
    await kv.txn({ compare: [], then: [{ op: 'delete', key: `${p}b` }] });
    await kv.txn({ compare: [], then: [put('/conformance/elsewhere', 'x')] });
    await seen.count(4);
    t.same(
      seen.events.map(
        ({ type, entry }) => `${type} ${entry.key.slice(p.length)}=${decodeText(entry.value)}`,
      ),
      ['put b=2', 'put a=3', 'put c=3', 'delete b='],
    );
    const revisions = seen.events.map(({ entry }) => entry.modRevision);
    t.same(
      revisions,
      [...revisions].sort((a, b) => a - b),
    );
    seen.watch.close();
  });

  t.test('a watch of one key ignores its neighbours, and is silent once closed', async (t) => {
    const { kv, p } = await setUp(t);
    const { revision } = await kv.txn({ compare: [], then: [put(`${p}x`)] });
    const one = record(kv, `${p}a`, undefined, revision + 1);
    const other = record(kv, p, prefixEnd(p), revision + 1);
    other.watch.close();
    await kv.txn({ compare: [], then: [put(`${p}ab`)] });
    await kv.txn({ compare: [], then: [put(`${p}a`)] });
    await one.count(1);
    t.equal(one.events[0]?.entry.key, `${p}a`);
    t.same(other.events, []);
    one.watch.close();
  });

  t.test('a watch from a compacted revision ends instead of skipping changes', async (t) => {
    const { kv, p } = await setUp(t);
    const { revision } = await kv.txn({ compare: [], then: [put(`${p}a`, '1')] });
    await kv.txn({ compare: [], then: [put(`${p}a`, '2')] });
    await fixture.compact();
    const seen = record(kv, p, prefixEnd(p), revision);
    t.ok(await seen.end());
    t.same(seen.events, []);
  });

  t.test('keys of a lease go with it: when it is revoked', async (t) => {
    const { kv, p } = await setUp(t);
    const { leaseId, ttlMs } = await kv.grantLease(fixture.leaseTtlMs);
    t.ok(ttlMs >= fixture.leaseTtlMs);
    const leased: TxnOp[] = [{ ...put(`${p}a`), leaseId } as TxnOp, put(`${p}b`)];
    const { revision } = await kv.txn({ compare: [], then: leased });
    t.equal((await kv.get(`${p}a`))?.leaseId, leaseId);
    t.not(await kv.timeToLive(leaseId), undefined);
    const seen = record(kv, p, prefixEnd(p), revision + 1);
    await kv.revokeLease(leaseId);
    await seen.count(1);
    t.match(seen.events, [{ type: 'delete', entry: { key: `${p}a` } }]);
    t.equal(await kv.get(`${p}a`), undefined);
    t.ok(await kv.get(`${p}b`));
    t.equal(await kv.timeToLive(leaseId), undefined);
    await kv.revokeLease(leaseId);
    t.equal(await kv.keepAliveOnce(leaseId), 0, 'it cannot be renewed');
    t.equal(await codeOf(kv.txn({ compare: [], then: leased })), 'LEASE_NOT_FOUND');
    seen.watch.close();
  });

  t.test('keys of a lease go with it: when it is not renewed, and not before', async (t) => {
    const { kv, p } = await setUp(t);
    const lease = await kv.grantLease(fixture.leaseTtlMs);
    const leased: TxnOp = { ...put(`${p}a`), leaseId: lease.leaseId } as TxnOp;
    const { revision } = await kv.txn({ compare: [], then: [leased] });
    const seen = record(kv, p, prefixEnd(p), revision + 1);
    for (let i = 0; i < 3; i += 1) {
      await fixture.pass(lease.ttlMs / 2);
      t.equal(await kv.keepAliveOnce(lease.leaseId), lease.ttlMs);
    }
    t.same(seen.events, [], 'renewed for longer than its time to live');
    await Promise.all([fixture.pass(lease.ttlMs + 1), seen.count(1)]);
    t.match(seen.events, [{ type: 'delete', entry: { key: `${p}a` } }]);
    seen.watch.close();
  });

  t.test('a key put again without a lease outlives the lease it had', async (t) => {
    const { kv, p } = await setUp(t);
    const { leaseId } = await kv.grantLease(fixture.leaseTtlMs);
    await kv.txn({ compare: [], then: [{ ...put(`${p}a`), leaseId } as TxnOp] });
    await kv.txn({ compare: [], then: [put(`${p}a`, 'mine')] });
    await kv.revokeLease(leaseId);
    t.ok(await kv.get(`${p}a`));
  });

  t.test('a closed store refuses calls and delivers nothing', async (t) => {
    const { kv, p } = await setUp(t);
    const other = await fixture.open();
    t.teardown(() => other.close());
    const { revision } = await kv.txn({ compare: [], then: [put(`${p}a`)] });
    const seen = record(kv, p, prefixEnd(p), revision + 1);
    await kv.close();
    await kv.close();
    const error: unknown = await kv.get(`${p}a`).catch((reason: unknown) => reason);
    t.ok(hasCode(error, 'CLOSED'));
    await other.txn({ compare: [], then: [put(`${p}a`)] });
    t.same(seen.events, []);
  });
}
