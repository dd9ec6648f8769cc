/**
 * The candidate queue and the leader's record, seen as one state by everybody in a process.
 *
 * They are two ranges of keys (all jobs sort between them) and two watches, whose events come in either
 * order. So the queue alone says who leads; the record only adds address and state, and only while its
 * epoch is that of the lowest candidate. A mismatch is therefore harmless: until record and queue have
 * caught up with each other, the queue's leader is named by its own candidate key, as RECOVERING.
 */
import type { Env } from '../lib/base/env.js';
import type { JobManagerId } from '../lib/base/ids.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import type { Keys } from './keys.js';
import type { KvEntry, KvStore } from './kv-store.js';
import type { CandidateInfo, CandidateView, LeaderEpoch, LeaderInfo } from './services.js';
import { StateWatch, type PrefixState } from './state-watch.js';
import { decodeValue, encodeValue, type ValueReader } from './values.js';

export interface Candidate {
  readonly key: string;
  /** Place in the queue: the lowest is, or may become, the leader. */
  readonly createRevision: number;
  /** `undefined` when its value cannot be read. */
  readonly info: CandidateView | undefined;
}

export interface LeadershipState {
  /** Store revision up to which the queue is known; the record may be older or newer. */
  readonly revision: number;
  /** Ascending by create revision. */
  readonly candidates: readonly Candidate[];
  /** Of the lowest candidate; address and state come from the leader's record once its epoch matches. */
  readonly leader: LeaderInfo | undefined;
  /** Whether the leader's record is that of the lowest candidate. */
  readonly isRecordCurrent: boolean;
}

export function encodeCandidate(info: CandidateInfo, era: number, since: number): Uint8Array {
  return encodeValue({ ...info, era, since });
}

export function encodeLeader(info: LeaderInfo, writeId: string): Uint8Array {
  return encodeValue({ ...info, w: writeId });
}

/** What queue and record mean together. Candidates that cannot be read count, but lead nowhere. */
function parseLeadership(
  candidates: PrefixState,
  recordEntry: KvEntry | undefined,
): LeadershipState {
  const queue = [...candidates.entries.values()].sort(
    (a, b) => a.createRevision - b.createRevision,
  );
  const views = queue.map((entry) => tryDecode(entry, decodeCandidate));
  const fromCandidate: LeaderInfo | undefined = views[0] && { ...views[0], state: 'RECOVERING' };
  const record = recordEntry && tryDecode(recordEntry, decodeLeader);
  const isRecordCurrent =
    fromCandidate !== undefined &&
    record?.epoch.era === fromCandidate.epoch.era &&
    record.epoch.revision === fromCandidate.epoch.revision;
  return {
    revision: candidates.revision,
    candidates: queue.map(({ key, createRevision }, i) => ({
      key,
      createRevision,
      info: views[i],
    })),
    leader: isRecordCurrent ? record : fromCandidate,
    isRecordCurrent,
  };
}

/** One per process, shared by its election and its leader retrievals; open while anybody listens. */
export class LeadershipWatch implements Closeable {
  readonly #keys: Keys;
  readonly #watches: readonly StateWatch[];
  readonly #listeners = new Set<(state: LeadershipState) => void>();
  #candidates: PrefixState | undefined;
  #record: PrefixState | undefined;
  #state: LeadershipState | undefined;

  constructor(env: Env, kv: KvStore, keys: Keys, resyncMs: number) {
    this.#keys = keys;
    this.#watches = [
      new StateWatch(env, kv, {
        prefix: keys.candidatesPrefix,
        resyncMs,
        onState: (state) => {
          this.#candidates = state;
          this.#update();
        },
      }),
      new StateWatch(env, kv, {
        // No other key of the layout begins with it.
        prefix: keys.leader,
        resyncMs,
        onState: (state) => {
          this.#record = state;
          this.#update();
        },
      }),
    ];
  }

  get state(): LeadershipState | undefined {
    return this.#state;
  }

  /** Calls `listener` at once when the state is known, and on every change. */
  subscribe(listener: (state: LeadershipState) => void): () => void {
    this.#listeners.add(listener);
    for (const watch of this.#watches) watch.start();
    if (this.#state !== undefined) listener(this.#state);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Reads the state again now. */
  refresh(): void {
    for (const watch of this.#watches) watch.refresh();
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await Promise.all(this.#watches.map((watch) => watch.close()));
  }

  #update(): void {
    // Both are read before anybody is told: an active leader would look recovering at first.
    if (this.#candidates === undefined || this.#record === undefined) return;
    const state = parseLeadership(this.#candidates, this.#record.entries.get(this.#keys.leader));
    this.#state = state;
    for (const listener of [...this.#listeners]) listener(state);
  }
}

function decodeCandidate(fields: ValueReader, entry: KvEntry): CandidateView {
  const epoch: LeaderEpoch = { era: fields.integer('era'), revision: entry.createRevision };
  return { ...decodeAddresses(fields), epoch };
}

function decodeLeader(fields: ValueReader): LeaderInfo {
  const epoch = fields.object('epoch');
  return {
    ...decodeAddresses(fields),
    epoch: { era: epoch.integer('era'), revision: epoch.integer('revision') },
    state: fields.oneOf('state', ['RECOVERING', 'ACTIVE', 'SUSPENDED']),
  };
}

function decodeAddresses(fields: ValueReader): Omit<LeaderInfo, 'epoch' | 'state'> {
  return {
    jobManagerId: fields.text('jobManagerId') as JobManagerId,
    rpcAddress: fields.text('rpcAddress'),
    restAddress: fields.text('restAddress'),
    since: fields.integer('since'),
  };
}

function tryDecode<T>(
  entry: KvEntry,
  decode: (fields: ValueReader, entry: KvEntry) => T,
): T | undefined {
  try {
    return decode(decodeValue(entry), entry);
  } catch {
    // Overwritten by hand: the leader publishes again, and until then nobody is named.
    return undefined;
  }
}
