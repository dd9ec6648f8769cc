/**
 * Runs all tasks of a slot cooperatively on the current thread, by the rules of docs/adr/0004.
 * Owned by a slot host (a worker's entry, or the calling thread), which ends the thread
 * when a cancelled task does not come back. Everything it says goes through `ports.report`; the last
 * message is `closed`.
 */
import { invariant } from '../base/assert.js';
import { setPeriodicTimer, type CancelTimer } from '../base/clock.js';
import { Deferred } from '../base/deferred.js';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import type {
  ChannelDescriptor,
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import type { BatchCodec, BatchWriter } from '../record/codec/batch-codec.js';
import { columnarBatchCodec } from '../record/codec/columnar-batch-codec.js';
import type { TaskMetrics } from '../gateway/taskmanager-gateway.js';
import { BlockedCalls } from './blocked-calls.js';
import { DirectChannel } from './direct-channel.js';
import { EpochStorage } from './epoch-storage.js';
import { DirectInputChannel, RingInputChannel, type InputChannel } from './input-channel.js';
import { RingOutputChannel, type OutputChannel } from './output-channel.js';
import { Quantum } from './quantum.js';
import type { SlotCommand } from './slot-api.js';
import type { SlotPorts, SlotRuntimeOptions, TaskContext } from './slot-ports.js';
import { StreamTask } from './stream-task.js';
import { TaskChannels } from './task-channels.js';
import type { TaskHost } from './task-host.js';

/** Quanta between two looks at the memory of the slot. */
const quantaPerMemoryCheck = 16;

/** ms between two flushes of an idle slot: one more for every 16 channels, as each costs a batch for each of them. */
function idleFlushMs(channels: number): number {
  return 1 + Math.floor(channels / 16);
}

export class SlotRuntime implements TaskHost {
  readonly env: Env;
  readonly ports: SlotPorts;
  readonly quantum: Quantum;
  readonly running = Int32Array.of(-1);
  readonly #options: Required<Omit<SlotRuntimeOptions, 'checkMemory'>> & SlotRuntimeOptions;
  readonly #blocked: BlockedCalls;
  readonly #directChannels = new Map<string, DirectChannel>();
  readonly #closed = new Deferred<void>();
  readonly #timers: CancelTimer[] = [];
  #tasks: StreamTask[] = [];
  #storage: EpochStorage | undefined;
  #openTasks = 0;
  #isDeployed = false;
  #isCancelled = false;
  /** Scheduled to run soon, running, or waiting for the bell. */
  #loopState: 'soon' | 'running' | 'asleep' | 'stopped' = 'stopped';
  #wasWoken = false;
  #cancelSleep: () => void = () => undefined;
  #quanta = 0;
  /** Outputs may hold records that were not flushed: the tasks had turns since, or there was no room. */
  #mayHold = false;
  #flushedAt = -Infinity;
  #idleFlushMs = Infinity;
  #isFlushDue = false;
  #cancelIdleFlush: CancelTimer = () => undefined;

  constructor(env: Env, ports: SlotPorts, options: SlotRuntimeOptions = {}) {
    this.env = env;
    this.ports = ports;
    this.#options = {
      quantumRecords: 512,
      quantumMs: 2,
      yieldMs: 1,
      maxOverdraftBuffers: 1024,
      maxQueuedRecords: 2048,
      blockedThresholdMs: 100,
      metricsIntervalMs: 1000,
      ...options,
    };
    this.#blocked = new BlockedCalls(env, this.#options.blockedThresholdMs);
    this.quantum = new Quantum(env.clock, this.#options.quantumRecords, this.#options.quantumMs);
  }

  /** The task whose code runs. */
  get current(): TaskContext | undefined {
    return this.#tasks[this.running[0]!]?.context;
  }

  /** Starts the tasks; once. Their states are reported, INITIALIZING first. */
  deploy(deployment: SlotDeployment): void {
    if (this.#isDeployed) throw new MillraceError('CONFLICT', 'the slot has its tasks already');
    this.#isDeployed = true;
    this.#storage = new EpochStorage(this.ports.storage, deployment.epochLabel);
    this.#tasks = deployment.tasks.map((descriptor, number) =>
      this.#createTask(deployment, descriptor, number),
    );
    this.#openTasks = this.#tasks.length;
    const { bufferTimeoutMs } = deployment.jobGraph.config;
    const { clock } = this.env;
    if (bufferTimeoutMs > 0) {
      const channels = deployment.tasks.flatMap((task) => task.outputs.flatMap((o) => o.channels));
      this.#idleFlushMs = idleFlushMs(channels.length);
      this.#timers.push(setPeriodicTimer(clock, bufferTimeoutMs, () => this.#flush()));
    }
    this.#timers.push(
      setPeriodicTimer(clock, this.#options.metricsIntervalMs, () => this.#reportMetrics()),
    );
    this.#timers.push(this.ports.loop.hold());
    this.#runSoon();
    if (this.#tasks.length === 0) this.#end();
    for (const task of this.#tasks) void task.start();
  }

  /** Commands to attempts that ended, or are not here, are ignored (an operator event is still answered). */
  command(command: SlotCommand): void {
    if (command.kind === 'cancel') {
      this.cancel();
      return;
    }
    if (command.kind === 'adopt') {
      this.#adopt(command);
      return;
    }
    const wanted = command.kind === 'operatorEvent' ? [command.attemptId] : command.attemptIds;
    const tasks = this.#tasks.filter(
      (task) => wanted.includes(task.context.attemptId) && task.takesCommands,
    );
    for (const task of tasks) task.command(command);
    if (tasks.length === 0 && command.kind === 'operatorEvent') {
      this.ports.report({ kind: 'taken', ticket: command.ticket });
    }
  }

  /**
   * The tasks get their part as mail, ahead of whatever the new leader sends next: one that is held back takes it
   * when it can, and need not be waited for.
   */
  #adopt(command: Extract<SlotCommand, { kind: 'adopt' }>): void {
    const { ticket, epochLabel, completedCheckpointId, abortedCheckpointId } = command;
    this.#storage?.enter(epochLabel, abortedCheckpointId);
    for (const task of this.#tasks) {
      if (task.takesCommands) {
        task.command({ kind: 'adopt', completedCheckpointId, abortedCheckpointId });
      }
    }
    this.ports.report({ kind: 'taken', ticket });
  }

  /** Stops every task that has not ended; `closed` follows. */
  cancel(): void {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    if (!this.#isDeployed) {
      this.#isDeployed = true;
      this.#end();
      return;
    }
    for (const task of this.#tasks) task.cancel();
  }

  /** Cancels what runs and resolves when every operator is closed. Idempotent. */
  async close(): Promise<void> {
    this.cancel();
    await this.#closed.promise;
  }

  // ---- TaskHost -------------------------------------------------------------------------------

  get storage(): EpochStorage {
    invariant(this.#storage !== undefined, 'the slot has no tasks yet');
    return this.#storage;
  }

  wake(): void {
    this.#wasWoken = true;
    if (this.#loopState !== 'asleep') return;
    this.#cancelSleep();
    this.#runSoon();
  }

  onEnded(): void {
    this.#openTasks -= 1;
    if (this.#openTasks === 0) this.#end();
  }

  // ---- Loop -----------------------------------------------------------------------------------

  #runSoon(): void {
    this.#loopState = 'soon';
    this.ports.loop.runSoon(() => this.#run());
  }

  /** Gives every task its turn, round after round, until nothing is left to do or the thread's other work is due. */
  #run(): void {
    if (this.#loopState === 'stopped') return;
    this.#loopState = 'running';
    this.#mayHold = true;
    const { clock } = this.env;
    const { bell } = this.ports.channels;
    const until = clock.now() + this.#options.yieldMs;
    for (;;) {
      const seen = bell.sequence;
      this.#wasWoken = false;
      let hasWorked = false;
      let before = clock.now();
      for (let i = 0; i < this.#tasks.length; i += 1) {
        const task = this.#tasks[i]!;
        bell.beginTurn(i);
        if (task.turn()) hasWorked = true;
        if (task.runBackground()) hasWorked = true;
        bell.endTurn();
        const now = clock.now();
        this.#blocked.onTurn(task.descriptor, now - before);
        this.#checkMemory();
        before = now;
      }
      if (this.#isStopped()) return;
      if (!hasWorked && !this.#wasWoken) {
        this.#flushIdle();
        this.#loopState = 'asleep';
        this.#cancelSleep = this.ports.loop.sleep(bell, seen, () => this.#run());
        return;
      }
      if (clock.now() >= until) {
        this.#runSoon();
        return;
      }
    }
  }

  #isStopped(): boolean {
    return this.#loopState === 'stopped';
  }

  #checkMemory(): void {
    this.#quanta += 1;
    if (this.#quanta % quantaPerMemoryCheck !== 0) return;
    const error = this.#options.checkMemory?.();
    if (error !== undefined) for (const task of this.#tasks) task.fail(error);
  }

  #flush(): void {
    this.#flushedAt = this.env.clock.now();
    for (const task of this.#tasks) task.flush();
    // What found no room is tried again when the bell has told of some.
    this.#mayHold = !this.#tasks.every((task) => task.hasRoom);
  }

  /**
   * Nothing is left to do: what was collected goes out now, rather than at the buffer timeout. Under load the slot is
   * idle for a moment now and then, and buffers should be full: so not all the time, but soon.
   */
  #flushIdle(): void {
    if (!this.#mayHold || this.#isFlushDue || this.#idleFlushMs === Infinity) return;
    const { clock } = this.env;
    const waitMs = this.#flushedAt + this.#idleFlushMs - clock.now();
    if (waitMs <= 0) {
      this.#flush();
      return;
    }
    this.#isFlushDue = true;
    this.#cancelIdleFlush = clock.setTimer(waitMs, () => {
      this.#isFlushDue = false;
      // Awake again: the flush is due when it is idle next.
      if (this.#loopState === 'asleep') this.#flush();
    });
  }

  #reportMetrics(): void {
    this.ports.report({ kind: 'metrics', tasks: this.#tasks.map((task) => this.#metricsOf(task)) });
  }

  #metricsOf(task: StreamTask): TaskMetrics {
    const metrics = task.metrics();
    const blocked = this.#blocked.metricsOf(task.context.attemptId);
    return blocked.length === 0
      ? metrics
      : { ...metrics, user: [...(metrics.user ?? []), ...blocked] };
  }

  #end(): void {
    if (this.#closed.settled) return;
    this.#cancelSleep();
    this.#loopState = 'stopped';
    for (const cancel of this.#timers) cancel();
    this.#cancelIdleFlush();
    if (this.#tasks.length > 0) this.#reportMetrics();
    this.ports.report({ kind: 'closed' });
    this.#closed.resolve();
  }

  // ---- Wiring ---------------------------------------------------------------------------------

  #createTask(
    deployment: SlotDeployment,
    descriptor: TaskDeploymentDescriptor,
    number: number,
  ): StreamTask {
    const sealsEachRecord = deployment.jobGraph.config.bufferTimeoutMs === 0;
    const inputs: InputChannel[] = [];
    const connects: ((task: StreamTask) => void)[] = [];
    const channels = descriptor.inputs.flatMap((input) => input.channels);
    const decoders = this.#codec.createDecoders(channels.length);
    for (const { channelId } of channels) {
      const index = inputs.length;
      if (this.ports.channels.isDirect(channelId)) {
        const channel = this.#directChannel(channelId);
        inputs.push(new DirectInputChannel(index, channel));
        connects.push((task) => channel.connect(task, index));
      } else {
        const reader = this.ports.channels.reader(channelId);
        inputs.push(new RingInputChannel(index, reader, decoders[index]!));
      }
    }
    const outputs = descriptor.outputs.map(({ channels: targets }) => {
      const { bufferBytes } = this.ports.channels;
      const writers = this.#codec.createWriters(targets.length, { bufferBytes });
      return targets.map((channel, index) =>
        this.#createOutput(channel, { writers, index }, sealsEachRecord),
      );
    });
    const task = new StreamTask(this, deployment, descriptor, {
      channels: new TaskChannels(inputs, outputs),
      number,
    });
    for (const connect of connects) connect(task);
    return task;
  }

  #createOutput(
    { channelId }: ChannelDescriptor,
    batches: { readonly writers: BatchWriter[]; readonly index: number },
    sealsEachRecord: boolean,
  ): OutputChannel {
    if (this.ports.channels.isDirect(channelId)) return this.#directChannel(channelId);
    const writer = this.ports.channels.writer(channelId, this.#options.maxOverdraftBuffers);
    return new RingOutputChannel(writer, batches, this.quantum, sealsEachRecord);
  }

  get #codec(): BatchCodec {
    return this.ports.codec ?? columnarBatchCodec;
  }

  #directChannel(channelId: string): DirectChannel {
    const known = this.#directChannels.get(channelId);
    if (known !== undefined) return known;
    const channel = new DirectChannel(this.quantum, this.#options.maxQueuedRecords);
    this.#directChannels.set(channelId, channel);
    return channel;
  }
}
