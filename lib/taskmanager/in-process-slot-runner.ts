/**
 * Slots in the calling thread, with functions by reference or by rebuild: the local environment, tests and
 * debugging. No memory limit, and user code that loops for ever stops everything.
 */
import { childEnv, type Env } from '../base/env.js';
import { toFailure } from '../base/errors.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { NetworkEnvironment } from '../network/network-environment.js';
import { attachChannels } from '../network/slot-channels.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import type { SnapshotStorage } from '../state/snapshot-storage.js';
import { createSlotLoop } from '../task/slot-loop.js';
import { SlotRuntime } from '../task/slot-runtime.js';
import type { RunningSlot, SlotEvents, SlotRunner, SlotStart } from './slot-runner.js';

export interface InProcessSlotDeps {
  readonly network: NetworkEnvironment;
  /** `bundlePath` is there for jobs that have a bundle. */
  readonly functions: (
    deployment: SlotDeployment,
    bundlePath: string | undefined,
  ) => FunctionSource | Promise<FunctionSource>;
  /** Writes into directories of this leadership. */
  readonly storage: (deployment: SlotDeployment, epochLabel: string) => SnapshotStorage;
}

export class InProcessSlotRunner implements SlotRunner {
  readonly isPreemptive = false;
  readonly #env: Env;
  readonly #deps: InProcessSlotDeps;

  constructor(env: Env, deps: InProcessSlotDeps) {
    this.#env = childEnv(env, 'slot');
    this.#deps = deps;
  }

  start(start: SlotStart, events: SlotEvents): RunningSlot {
    return new InProcessSlot(this.#env, this.#deps, start, events);
  }
}

class InProcessSlot implements RunningSlot {
  readonly #env: Env;
  readonly #deps: InProcessSlotDeps;
  readonly #events: SlotEvents;
  readonly #ready: Promise<SlotRuntime | undefined>;
  #onEnd: () => void = () => undefined;
  #isEnded = false;

  constructor(env: Env, deps: InProcessSlotDeps, start: SlotStart, events: SlotEvents) {
    this.#env = env;
    this.#deps = deps;
    this.#events = events;
    this.#ready = this.#start(start).catch((error: unknown) => {
      this.#end(toFailure(error));
      return undefined;
    });
  }

  send(command: Parameters<RunningSlot['send']>[0]): void {
    // In order: continuations of one promise run in the order they were added.
    void this.#ready.then((runtime) => {
      if (!this.#isEnded) runtime?.command(command);
    });
  }

  /** There is no thread to end: tasks that were asked to stop do so at their next turn. */
  terminate(): void {
    this.send({ kind: 'cancel' });
  }

  async #start({ deployment, slotIndex, bundlePath }: SlotStart): Promise<SlotRuntime> {
    const { network, functions, storage } = this.#deps;
    const source = await functions(deployment, bundlePath);
    const channels = network.openChannels(deployment, slotIndex);
    this.#onEnd = () => {
      network.releaseChannels(slotIndex, deployment.generation);
    };
    const runtime = new SlotRuntime(this.#env, {
      functions: source,
      storage: (epochLabel) => storage(deployment, epochLabel),
      channels: attachChannels(channels),
      report: (report) => {
        if (this.#isEnded) return;
        this.#events.onReport(report);
        if (report.kind === 'closed') this.#end(undefined);
      },
      loop: createSlotLoop(this.#env.clock),
    });
    runtime.deploy(deployment);
    return runtime;
  }

  #end(failure: ReturnType<typeof toFailure> | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#onEnd();
    this.#events.onEnded(failure);
  }
}
