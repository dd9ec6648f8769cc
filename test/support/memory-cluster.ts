import type { Env } from '../../lib/base/env.js';
import type { JobManagerId } from '../../lib/base/ids.js';
import { createHighAvailability, type HighAvailabilityOptions } from '../../ha/index.js';
import { MemoryKvServer } from '../../ha/memory/memory-kv-server.js';
import { MemoryKvStore } from '../../ha/memory/memory-kv-store.js';
import type { HighAvailability, LeaderElection } from '../../ha/services.js';
import type { TeardownHost } from './etcd.js';
import { ManualClock, settle } from './manual-clock.js';
import { RecordingContender } from './recording-contender.js';
import { testEnv } from './test-env.js';

/** A process of an in-memory cluster: its own connection with its own faults. */
export interface MemoryProcess {
  readonly kv: MemoryKvStore;
  readonly ha: HighAvailability;
  readonly env: Env;
}

export interface MemoryCandidate extends MemoryProcess {
  readonly election: LeaderElection;
  readonly contender: RecordingContender;
}

/** Processes that share an in-memory store, on one manual clock. */
export class MemoryCluster {
  readonly clock = new ManualClock();
  readonly server = new MemoryKvServer(this.clock);
  readonly #options: HighAvailabilityOptions;
  readonly #t: TeardownHost;
  #processes = 0;

  constructor(t: TeardownHost, options: Partial<HighAvailabilityOptions> = {}) {
    this.#t = t;
    this.#options = { clusterId: 'test', ...options };
    t.teardown(() => {
      this.server.close();
    });
  }

  /** A connection without a process. */
  connect(): MemoryKvStore {
    const kv = new MemoryKvStore(this.clock, this.server);
    this.#t.teardown(() => kv.close());
    return kv;
  }

  async process(options: Partial<HighAvailabilityOptions> = {}): Promise<MemoryProcess> {
    this.#processes += 1;
    const env = testEnv(this.clock, this.#processes);
    const kv = new MemoryKvStore(this.clock, this.server);
    const ha = await createHighAvailability(env, kv, { ...this.#options, ...options });
    this.#t.teardown(async () => {
      await ha.close();
      await kv.close();
    });
    return { kv, ha, env };
  }

  async candidate(name: string): Promise<MemoryCandidate> {
    const process = await this.process();
    const election = process.ha.createElection({
      jobManagerId: name as JobManagerId,
      rpcAddress: `${name}:1`,
      restAddress: `http://${name}:2`,
    });
    const contender = new RecordingContender();
    election.start(contender);
    this.#t.teardown(async () => {
      // The retries of a faulty connection would wait for a clock that nobody moves any more.
      process.kv.faults.unavailable = false;
      process.kv.faults.onWrite = () => 'none';
      process.kv.faults.latencyMs = 0;
      await election.close();
    });
    await settle();
    return { ...process, election, contender };
  }
}
