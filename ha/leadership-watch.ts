/** The candidate queue and the leader's record, seen as one state by everybody in a process. */
import type { Env } from '../lib/base/env.js';
import type { JobManagerId } from '../lib/base/ids.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import type { Keys } from './keys.js';
import type { KvEntry, KvStore } from './kv-store.js';
import type { CandidateInfo, LeaderEpoch, LeaderInfo } from './services.js';
import { StateWatch, type PrefixState } from './state-watch.js';
import { decodeValue, encodeValue, type ValueReader } from './values.js';

export interface Candidate {
  readonly key: string;
  /** Place in the queue: the lowest is, or may become, the leader. */
  readonly createRevision: number;
}

export interface LeadershipState {
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

/** What the keys under the leadership prefix mean. Candidates that cannot be read count, but lead nowhere. */
export function parseLeadership(keys: Keys, state: PrefixState): LeadershipState {
  const queue = [...state.entries.values()]
    .filter((entry) => entry.key.startsWith(keys.candidatesPrefix))
    .sort((a, b) => a.createRevision - b.createRevision);
  const first = queue[0];
  const fromCandidate = first && tryDecode(first, decodeCandidate);
  const recordEntry = state.entries.get(keys.leader);
  const record = recordEntry && tryDecode(recordEntry, decodeLeader);
  const isRecordCurrent =
    fromCandidate !== undefined &&
    record?.epoch.era === fromCandidate.epoch.era &&
    record.epoch.revision === fromCandidate.epoch.revision;
  return {
    revision: state.revision,
    candidates: queue.map(({ key, createRevision }) => ({ key, createRevision })),
    leader: isRecordCurrent ? record : fromCandidate,
    isRecordCurrent,
  };
}

/** One watch per process, shared by its election and its leader retrievals; open while anybody listens. */
export class LeadershipWatch implements Closeable {
  readonly #env: Env;
  readonly #kv: KvStore;
  readonly #keys: Keys;
  readonly #resyncMs: number;
  readonly #listeners = new Set<(state: LeadershipState) => void>();
  #watch: StateWatch | undefined;
  #state: LeadershipState | undefined;

  constructor(env: Env, kv: KvStore, keys: Keys, resyncMs: number) {
    this.#env = env;
    this.#kv = kv;
    this.#keys = keys;
    this.#resyncMs = resyncMs;
  }

  get state(): LeadershipState | undefined {
    return this.#state;
  }

  /** Calls `listener` at once when the state is known, and on every change. */
  subscribe(listener: (state: LeadershipState) => void): () => void {
    this.#listeners.add(listener);
    this.#open();
    if (this.#state !== undefined) listener(this.#state);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Reads the state again now. */
  refresh(): void {
    this.#watch?.refresh();
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await this.#watch?.close();
  }

  #open(): void {
    if (this.#watch !== undefined) return;
    this.#watch = new StateWatch(this.#env, this.#kv, {
      prefix: this.#keys.leadershipPrefix,
      resyncMs: this.#resyncMs,
      onState: (prefixState) => {
        const state = parseLeadership(this.#keys, prefixState);
        this.#state = state;
        for (const listener of [...this.#listeners]) listener(state);
      },
    });
    this.#watch.start();
  }
}

function decodeCandidate(fields: ValueReader, entry: KvEntry): LeaderInfo {
  const epoch: LeaderEpoch = { era: fields.integer('era'), revision: entry.createRevision };
  return { ...decodeAddresses(fields), epoch, state: 'RECOVERING' };
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

function tryDecode(
  entry: KvEntry,
  decode: (fields: ValueReader, entry: KvEntry) => LeaderInfo,
): LeaderInfo | undefined {
  try {
    return decode(decodeValue(entry), entry);
  } catch {
    // Overwritten by hand: the leader publishes again, and until then nobody is named.
    return undefined;
  }
}
