/** Several slots on one thread, each run only when the test says so, and a stand-in for the JobMaster. */
import { SeededRandom } from '../../lib/base/random.js';
import type { AttemptId, TaskManagerId } from '../../lib/base/ids.js';
import type { Failure } from '../../lib/base/errors.js';
import { isTerminal } from '../../lib/base/transitions.js';
import { executionTransitions, type ExecutionState } from '../../lib/gateway/execution-state.js';
import { NetworkEnvironment } from '../../lib/network/network-environment.js';
import { attachChannels } from '../../lib/network/slot-channels.js';
import type { TaskStateSnapshot } from '../../lib/state/state-handle.js';
import type { SlotCommand, SlotReportMessage } from '../../lib/task/slot-api.js';
import type { OpenStorage } from '../../lib/task/epoch-storage.js';
import { ManualSlotLoop } from '../../lib/task/slot-loop.js';
import type { SlotRuntimeOptions } from '../../lib/task/slot-ports.js';
import { SlotRuntime } from '../../lib/task/slot-runtime.js';
import { ManualClock } from '../../lib/testing/manual-clock.js';
import {
  attemptIdOf,
  deploymentsOf,
  functionsOf,
  isConnected,
  memoryStorage,
  type TestJob,
  type TestPlacement,
} from './slot-job.js';
import { testEnv } from './test-env.js';

export interface SlotClusterOptions {
  readonly seed: number;
  readonly slots: number;
  readonly placement: TestPlacement;
  readonly runtime?: SlotRuntimeOptions;
  readonly storage?: OpenStorage;
  readonly bufferBytes?: number;
  readonly buffersPerChannel?: number;
}

export interface TestTask {
  readonly attemptId: AttemptId;
  readonly vertex: string;
  readonly upstream: readonly AttemptId[];
  state: ExecutionState;
  failure?: Failure;
  hasEndOfData: boolean;
}

export class SlotCluster {
  readonly clock = new ManualClock(1_000_000);
  readonly random: SeededRandom;
  readonly tasks = new Map<AttemptId, TestTask>();
  readonly reports: SlotReportMessage[] = [];
  readonly runtimes: SlotRuntime[] = [];
  readonly loops: ManualSlotLoop[] = [];
  readonly network: NetworkEnvironment;
  /** Acknowledged so far, by checkpoint. */
  readonly acks = new Map<number, Map<AttemptId, TaskStateSnapshot>>();
  closedSlots = 0;

  constructor(job: TestJob, options: SlotClusterOptions) {
    this.random = new SeededRandom(options.seed);
    const env = testEnv(this.clock, options.seed);
    this.network = new NetworkEnvironment(env, {
      taskManagerId: 'tm-0' as TaskManagerId,
      clusterUid: 'test',
      slots: options.slots,
      bufferBytes: options.bufferBytes ?? 256,
      buffersPerChannel: options.buffersPerChannel ?? 2,
    });
    for (const { name, parallelism } of job.vertices) {
      for (let i = 0; i < parallelism; i += 1) {
        const upstream = job.edges
          .filter(({ to }) => to === name)
          .flatMap((edge) => {
            const producers = job.vertices.find((v) => v.name === edge.from)?.parallelism ?? 0;
            return Array.from({ length: producers }, (_, p) => p)
              .filter((p) => isConnected(edge, p, i))
              .map((p) => attemptIdOf(edge.from, p));
          });
        const attemptId = attemptIdOf(name, i);
        this.tasks.set(attemptId, {
          attemptId,
          vertex: name,
          upstream,
          state: 'CREATED',
          hasEndOfData: false,
        });
      }
    }
    const functions = functionsOf(job);
    for (const [slot, deployment] of deploymentsOf(job, options.placement)) {
      const loop = new ManualSlotLoop();
      const channels = attachChannels(this.network.openChannels(deployment, slot));
      const report = (message: SlotReportMessage): void => this.#onReport(message);
      const storage = options.storage ?? (() => memoryStorage);
      const ports = { functions, storage, channels, report, loop };
      const runtime = new SlotRuntime(env, ports, { yieldMs: 0, ...options.runtime });
      this.runtimes.push(runtime);
      this.loops.push(loop);
      runtime.deploy(deployment);
    }
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.random.next() * items.length)]!;
  }

  send(command: SlotCommand): void {
    for (const runtime of this.runtimes) runtime.command(command);
  }

  get live(): TestTask[] {
    return [...this.tasks.values()].filter(({ state }) => !isTerminal(executionTransitions, state));
  }

  /** Tasks a checkpoint begins at: all that feed them have finished. */
  get roots(): AttemptId[] {
    return this.live
      .filter(({ upstream }) => upstream.every((id) => this.tasks.get(id)?.state === 'FINISHED'))
      .map(({ attemptId }) => attemptId);
  }

  /** One step of one slot that has something to do; false when none has. */
  step(): boolean {
    const runnable = this.loops.filter((loop) => loop.isRunnable);
    if (runnable.length === 0) return false;
    return this.pick(runnable).step();
  }

  /** Lets promises settle; nothing here waits for more than a chain of them. */
  async settle(): Promise<void> {
    for (let i = 0; i < 12; i += 1) await Promise.resolve();
  }

  /** Steps and lets time pass until `done`; throws when nothing moves any more. */
  async runUntil(done: () => boolean, onStep: () => void = () => undefined): Promise<void> {
    let idle = 0;
    for (let i = 0; i < 100_000; i += 1) {
      if (done()) return;
      onStep();
      const hasMoved = this.step();
      await this.settle();
      if (!hasMoved) this.clock.advance(20);
      idle = hasMoved ? 0 : idle + 1;
      if (idle > 100) break;
    }
    const states = [...this.tasks.values()]
      .map((t) => `${t.attemptId} ${t.state}${t.hasEndOfData ? ' at its end' : ''}`)
      .join(', ');
    throw new Error(`nothing moves any more: ${states}`);
  }

  async close(): Promise<void> {
    await Promise.all(this.runtimes.map((runtime) => runtime.close()));
    await this.network.close();
  }

  #onReport(message: SlotReportMessage): void {
    this.reports.push(message);
    switch (message.kind) {
      case 'taskState': {
        const task = this.tasks.get(message.attemptId)!;
        if (
          !executionTransitions[task.state === 'CREATED' ? 'DEPLOYING' : task.state].includes(
            message.state,
          )
        ) {
          throw new Error(`${task.attemptId}: ${task.state} -> ${message.state}`);
        }
        task.state = message.state;
        if (message.failure !== undefined) task.failure = message.failure;
        break;
      }
      case 'checkpointAck': {
        const acks = this.acks.get(message.checkpointId) ?? new Map<AttemptId, TaskStateSnapshot>();
        if (acks.has(message.attemptId)) throw new Error('acknowledged twice');
        acks.set(message.attemptId, message.snapshot);
        this.acks.set(message.checkpointId, acks);
        break;
      }
      case 'endOfData':
        this.tasks.get(message.attemptId)!.hasEndOfData = true;
        break;
      case 'closed':
        this.closedSlots += 1;
        break;
      default:
    }
  }
}
