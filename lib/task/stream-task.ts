/**
 * One attempt of one subtask: INITIALIZING -> RUNNING -> FINISHED, FAILED or CANCELED. It never waits:
 * the slot's runtime gives it turns, and others of the slot may call it directly in theirs. Everything
 * that does not come with the input (commands, timers) is mail, taken between quanta.
 */
import { InvariantError } from '../base/assert.js';
import { toFailure } from '../base/errors.js';
import { isTerminal } from '../base/transitions.js';
import { executionTransitions, type ExecutionState } from '../gateway/execution-state.js';
import type {
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import type { TaskMetrics } from '../gateway/taskmanager-gateway.js';
import type { TaskRestore } from '../state/state-handle.js';
import { isSourceOperator, type OperatorContext } from '../operators/stream-operator.js';
import { MAX_WATERMARK, type ControlEvent } from '../record/stream-element.js';
import type { BatchReader } from '../record/codec/batch-codec.js';
import { WatermarkValve, type WatermarkInput } from '../time/watermark-valve.machine.js';
import { BackgroundWork } from './background-work.js';
import { createRecordPath } from './create-record-path.js';
import type { DirectConsumer } from './direct-channel.js';
import { createEdgeOutputs, type EdgeOutput } from './edge-output.js';
import { HeldWork } from './held-work.js';
import type { InputSink } from './input-channel.js';
import { OperatorChain, type OperatorNode } from './operator-chain.js';
import type { RecordPath, RecordPathOwner } from './record-path.js';
import type { SlotCommand } from './slot-api.js';
import { SourceInput } from './source-input.js';
import type { TaskContext } from './slot-ports.js';
import type { TaskHost } from './task-host.js';
import type { TaskChannels } from './task-channels.js';
import { TaskCheckpoints } from './task-checkpoints.js';
import { toTaskError } from './task-failure.js';
import { ActivityMeter, collectTaskMetrics } from './task-metrics.js';
import { createOperatorContext } from './operator-context.js';

/**
 * Where a task stands on its way to the end: taking input; MAX_WATERMARK given, timers firing, operators
 * finishing; waiting for a checkpoint taken after that to complete; sending endOfPartition; ended.
 */
type Phase = 'running' | 'finishing' | 'awaitingCheckpoint' | 'ending' | 'ended';

export type TaskCommand =
  | Exclude<SlotCommand, { kind: 'cancel' | 'adopt' }>
  /** Of another leader: checkpoints up to `abortedCheckpointId` are given up, this one (0: none) is complete. */
  | {
      readonly kind: 'adopt';
      readonly completedCheckpointId: number;
      readonly abortedCheckpointId: number;
    };

export class StreamTask implements DirectConsumer, InputSink {
  readonly descriptor: TaskDeploymentDescriptor;
  readonly context: TaskContext;
  readonly #host: TaskHost;
  /** Among the tasks of the slot. */
  readonly #number: number;
  readonly #job: SlotDeployment;
  readonly #channels: TaskChannels;
  #edges: readonly EdgeOutput[] = [];
  readonly #valve: WatermarkValve;
  readonly #checkpoints: TaskCheckpoints;
  readonly #activity: ActivityMeter;
  #chain: OperatorChain | undefined;
  #state: ExecutionState = 'CREATED';
  #phase: Phase = 'running';
  /** Who threw first since the last failure-free turn: exceptions surface in other stacks, or are swallowed. */
  #blamed: { readonly error: unknown; readonly node: OperatorNode } | undefined;
  /** Commands; need no room in the outputs. */
  readonly #commands: (() => void)[] = [];
  /** Processing-time timers; may emit. */
  readonly #timers: (() => void)[] = [];
  readonly #held = new HeldWork();
  readonly #background = new BackgroundWork();
  readonly #source = new SourceInput();
  #finishedOperators = 0;
  #path: RecordPath | undefined;
  #opening: Promise<void> | undefined;
  #closing: Promise<unknown> | undefined;
  readonly #cancelTimers = new Set<() => void>();

  constructor(
    host: TaskHost,
    job: SlotDeployment,
    descriptor: TaskDeploymentDescriptor,
    { channels, number }: { readonly channels: TaskChannels; readonly number: number },
  ) {
    this.#host = host;
    this.#number = number;
    this.#job = job;
    this.descriptor = descriptor;
    this.context = {
      jobId: job.jobId,
      attemptId: descriptor.attemptId,
      vertexName: descriptor.vertex.name,
      subtaskIndex: descriptor.subtaskIndex,
    };
    this.#channels = channels;
    this.#valve = new WatermarkValve(channels.inputs.length);
    this.#activity = new ActivityMeter(host.env.clock);
    this.#checkpoints = new TaskCheckpoints(
      {
        attemptId: descriptor.attemptId,
        clock: host.env.clock,
        report: host.ports.report,
        chain: () => this.#chainOrThrow(),
        broadcast: (event) => channels.broadcast(event),
        setBlocked: (channel, isBlocked) => this.#setBlocked(channel, isBlocked),
        isFinished: () => this.#phase !== 'running' && this.#phase !== 'finishing',
        isRunning: () => this.#state === 'RUNNING',
        onCommitted: (checkpointId) => this.#onCommitted(checkpointId),
        fail: (error) => this.fail(error),
        wake: () => host.wake(),
      },
      channels.inputs.length,
    );
  }

  get state(): ExecutionState {
    return this.#state;
  }

  get hasEnded(): boolean {
    return this.#state === 'FINISHED' || this.#state === 'FAILED' || this.#state === 'CANCELED';
  }

  get takesCommands(): boolean {
    return !this.hasEnded && this.#state !== 'CANCELING' && this.#phase !== 'ended';
  }

  // ---- Life -----------------------------------------------------------------------------------

  /** Creates and opens the operators; never rejects. */
  async start(): Promise<void> {
    this.#setState('INITIALIZING');
    try {
      if (this.descriptor.restore?.finished === true) {
        await this.#commitRestored(this.descriptor.restore);
        if (this.state === 'INITIALIZING') this.#passEndOn();
        return;
      }
      const chain = this.#inContext(() => this.#createChain());
      this.#chain = chain;
      this.#opening = this.#inContext(() => chain.open());
      await this.#opening;
      const path = this.#createPath(chain);
      this.#path = path;
      this.#channels.connect(path.direct);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (this.#state !== 'INITIALIZING') return;
    this.#setState('RUNNING');
    this.#host.wake();
  }

  /** Ends the task with an error, reported once; blamed on the operator that threw first, if one did. */
  fail(error: unknown): void {
    if (this.hasEnded || this.#state === 'CANCELING') return;
    const blamed = this.#blamed;
    const { vertex, subtaskIndex } = this.descriptor;
    const wrapped = toTaskError(
      blamed?.error ?? error,
      { name: vertex.name, subtaskIndex, parallelism: vertex.parallelism },
      blamed?.node,
    );
    this.#host.env.log.warn(
      { event: 'task.failed', err: wrapped, attemptId: this.context.attemptId },
      'task failed',
    );
    this.#channels.close();
    this.#setState('FAILED', wrapped);
    this.#host.quantum.stop();
    void this.#closeOperators().then(() => this.#host.onEnded());
  }

  /** Stops at once; the operators are closed, nothing more is emitted. */
  cancel(): void {
    if (this.hasEnded || this.#state === 'CANCELING') return;
    this.#state = 'CANCELING';
    this.#channels.refresh();
    this.#channels.close();
    void this.#closeOperators().then(() => {
      this.#setState('CANCELED');
      this.#host.onEnded();
    });
  }

  command(command: TaskCommand): void {
    this.#commands.push(() => this.#obey(command));
    this.#host.wake();
  }

  metrics(): TaskMetrics {
    return collectTaskMetrics({
      attemptId: this.context.attemptId,
      numRecordsIn: this.#path?.recordsIn ?? 0,
      inputWatermark: this.#valve.current,
      activity: this.#activity,
      inputs: this.#channels.inputs,
      outputs: this.#channels.outputs,
      edges: this.#edges,
      nodes: this.#chain?.nodes ?? [],
    });
  }

  /** The buffer timeout passed: partly filled buffers go out. */
  flush(): void {
    if (this.#state !== 'RUNNING') return;
    this.#guarded(() => this.#channels.flush());
  }

  // ---- Turns ----------------------------------------------------------------------------------

  /** One quantum; true when something was done, so that another may be worth while. */
  turn(): boolean {
    if (this.#state !== 'RUNNING' || this.#phase === 'ended') return false;
    this.#host.quantum.begin();
    const hasWorked = this.#guarded(() => this.#takeTurn()) ?? true;
    this.#channels.refresh();
    return hasWorked;
  }

  /** A piece of the work that goes on beside the records; true when there was some. */
  runBackground(): boolean {
    return this.#background.run();
  }

  #takeTurn(): boolean {
    const failure = this.#channels.failure(!this.#isLeaving);
    if (failure !== undefined) throw failure;
    const hadMail = this.#commands.length > 0 && this.canTake;
    if (this.#held.isHeld) {
      if (!this.hasRoom) return this.#rest('backPressured');
      this.#activity.set('busy');
      this.#held.proceed(this.#host.quantum, this.#chainOrThrow());
      if (this.#held.isHeld) return true;
    }
    // While the operators finish no snapshot may see some of them finished and others not.
    while (this.#commands.length > 0 && this.canTake) this.#commands.shift()?.();
    if (!this.hasRoom) {
      this.#rest('backPressured');
      return hadMail;
    }
    if (this.#phase !== 'running') this.#timers.length = 0;
    while (this.#timers.length > 0 && !this.mustStop) this.#timers.shift()?.();
    const hasWorked = !this.mustStop && this.#takeInput();
    const hasAdvanced = !this.#held.isHeld && !this.#host.quantum.isOver && this.#advanceEnd();
    if (
      !hasWorked &&
      !hasAdvanced &&
      !hadMail &&
      !this.#held.isHeld &&
      !this.#host.quantum.isOver
    ) {
      return this.#rest('idle');
    }
    this.#activity.set('busy');
    return true;
  }

  #rest(activity: 'idle' | 'backPressured'): false {
    this.#activity.set(activity);
    return false;
  }

  #takeInput(): boolean {
    if (this.#phase === 'finishing') return false;
    if (this.#isSource)
      return this.#phase === 'running' && this.#source.pull(this.#chainOrThrow(), this);
    return this.#channels.drain(this);
  }

  // ---- Elements (own turn and direct calls) ---------------------------------------------------

  processRows(rows: BatchReader, from: number): number {
    return this.#path!.rows(rows, from);
  }

  processRecord(value: unknown, timestamp: number): void {
    this.#path!.record(value, timestamp);
  }

  processControl(channel: number, event: ControlEvent): void {
    const input = this.#channels.inputs[channel]!;
    if (event.kind === 'endOfData' || event.kind === 'endOfPartition') input.hasEndOfData = true;
    if (event.kind === 'endOfPartition') input.hasEnded = true;
    // Behind its own endOfPartition the task takes no part in checkpoints any more.
    if (this.#isLeaving) return;
    switch (event.kind) {
      case 'watermark':
        this.#stepValve({ kind: 'watermarkArrived', channel, timestamp: event.timestamp });
        break;
      case 'watermarkStatus':
        this.#stepValve({ kind: 'statusArrived', channel, active: event.active });
        break;
      case 'barrier':
        this.#checkpoints.step({ ...event, kind: 'barrierArrived', channel });
        break;
      case 'cancelBarrier':
        this.#checkpoints.step({ kind: 'cancelBarrierArrived', checkpointId: event.checkpointId });
        break;
      case 'endOfData':
        break;
      case 'endOfPartition':
        this.#checkpoints.step({ kind: 'partitionEnded', channel });
        break;
    }
  }

  stopsAfterElement(): boolean {
    return this.#host.quantum.step() || this.mustStop;
  }

  get canTake(): boolean {
    return this.#state === 'RUNNING' && !this.#held.isHeld && this.#phase !== 'finishing';
  }

  /** Nothing it is sent any more matters. */
  get hasFinished(): boolean {
    return this.#phase === 'ended';
  }

  get hasRoom(): boolean {
    return this.#channels.hasRoom;
  }

  /** Direct call: an exception is this task's failure, not its caller's. */
  takeControl(channel: number, event: ControlEvent): void {
    const before = this.#enter();
    try {
      this.processControl(channel, event);
    } catch (error) {
      this.fail(error);
    }
    this.#channels.refresh();
    this.#leave(before);
  }

  #stepValve(input: WatermarkInput): void {
    const chain = this.#chainOrThrow();
    const { head } = chain;
    for (const effect of this.#valve.step(input)) {
      this.#held.inOrder(() =>
        chain.guard(head, () => {
          if (effect.kind === 'emitWatermark') head.operator.processWatermark(effect.timestamp);
          else head.operator.processWatermarkStatus(effect.active);
        }),
      );
    }
  }

  get #isSource(): boolean {
    return this.#channels.inputs.length === 0;
  }

  get #isLeaving(): boolean {
    return this.#phase === 'ending' || this.#phase === 'ended';
  }

  get mustStop(): boolean {
    return (
      this.#host.quantum.isOver ||
      this.#held.isHeld ||
      this.#state !== 'RUNNING' ||
      this.#blamed !== undefined
    );
  }

  // ---- Commands -------------------------------------------------------------------------------

  #obey(command: TaskCommand): void {
    if (this.#isLeaving && command.kind !== 'operatorEvent') {
      if (command.kind === 'checkpointAborted') this.#checkpoints.forget(command.checkpointId);
      else if (command.kind === 'adopt') this.#checkpoints.forgetUpTo(command.abortedCheckpointId);
      return;
    }
    switch (command.kind) {
      case 'triggerCheckpoint': {
        const { checkpointId, timestamp } = command;
        this.#checkpoints.step({ kind: 'triggered', checkpointId, timestamp });
        break;
      }
      case 'checkpointComplete':
        this.#checkpoints.complete(command.checkpointId);
        break;
      case 'checkpointAborted':
        this.#checkpoints.step({
          kind: 'abortedByCoordinator',
          checkpointId: command.checkpointId,
        });
        break;
      case 'adopt':
        this.#checkpoints.abortUpTo(command.abortedCheckpointId);
        this.#checkpoints.complete(command.completedCheckpointId);
        break;
      case 'operatorEvent':
        this.#takeOperatorEvent(command);
        break;
    }
  }

  #takeOperatorEvent(command: Extract<TaskCommand, { kind: 'operatorEvent' }>): void {
    const chain = this.#chain;
    const node = chain?.nodes.find(({ id }) => id === command.operatorId);
    if (chain !== undefined && node !== undefined && isSourceOperator(node.operator)) {
      const { operator } = node;
      chain.guard(node, () => operator.handleOperatorEvent(command.event));
      this.#wakeUp();
    }
    this.#host.ports.report({ kind: 'taken', ticket: command.ticket });
  }

  // ---- End of data ----------------------------------------------------------------------------

  /** Takes the next step towards the end; true when there was one. */
  #advanceEnd(): boolean {
    switch (this.#phase) {
      case 'running': {
        const isOver = this.#isSource
          ? this.#source.hasEnded
          : this.#channels.inputs.every((input) => input.hasEndOfData);
        if (!isOver) return false;
        this.#phase = 'finishing';
        this.#emitEndOfTime();
        return true;
      }
      case 'finishing':
        this.#finishOperators();
        return true;
      case 'awaitingCheckpoint':
      case 'ended':
        return false;
      case 'ending':
        // A snapshot that is still being written belongs to a checkpoint that would fail without it.
        if (!this.#channels.isFlushed || this.#checkpoints.isWriting) return false;
        this.#phase = 'ended';
        void this.#complete();
        return true;
    }
  }

  #emitEndOfTime(): void {
    const chain = this.#chainOrThrow();
    const { head } = chain;
    if (this.#isSource) head.output.emitWatermark(MAX_WATERMARK);
    else if (this.#valve.current < MAX_WATERMARK) {
      chain.guard(head, () => head.operator.processWatermark(MAX_WATERMARK));
    }
  }

  #finishOperators(): void {
    const chain = this.#chainOrThrow();
    while (this.#finishedOperators < chain.nodes.length) {
      const node = chain.nodes[this.#finishedOperators]!;
      this.#finishedOperators += 1;
      chain.guard(node, () => node.operator.finish());
      if (this.mustStop) return;
    }
    this.#phase = 'awaitingCheckpoint';
    this.#channels.broadcast({ kind: 'endOfData' });
    this.#host.ports.report({ kind: 'endOfData', attemptId: this.context.attemptId });
  }

  #onCommitted(checkpointId: number): void {
    const final = this.#checkpoints.finalCheckpointId;
    if (this.#phase !== 'awaitingCheckpoint' || final === undefined || checkpointId < final) return;
    this.#channels.broadcast({ kind: 'endOfPartition' });
    this.#phase = 'ending';
    this.#host.wake();
  }

  /** Its last checkpoint may have completed without the commit that follows: only sinks do something. */
  async #commitRestored({ operators }: TaskRestore): Promise<void> {
    if (Object.values(operators).every(({ operator }) => operator.length === 0)) return;
    this.#opening = this.#inContext(() => this.#createChain().commitRestored());
    await this.#opening;
  }

  /** The subtask had ended before the checkpoint it is restored from: it says so again, without user code. */
  #passEndOn(): void {
    this.#channels.broadcast({ kind: 'watermark', timestamp: MAX_WATERMARK });
    this.#channels.broadcast({ kind: 'endOfData' });
    this.#channels.broadcast({ kind: 'endOfPartition' });
    this.#setState('RUNNING');
    this.#phase = 'ending';
    this.#host.wake();
  }

  async #complete(): Promise<void> {
    const failure = await this.#closeOperators();
    if (this.#state !== 'RUNNING') return;
    if (failure !== undefined) {
      this.fail(failure);
      return;
    }
    this.#setState('FINISHED');
    this.#host.onEnded();
  }

  // ---- Inside ---------------------------------------------------------------------------------

  #createChain(): OperatorChain {
    const { descriptor } = this;
    const { functions } = this.#host.ports;
    this.#edges = createEdgeOutputs(descriptor, this.#channels.outputsByEdge, functions);
    const edges = this.#edges;
    return new OperatorChain({
      operators: descriptor.vertex.operators,
      functions,
      edgesOf: (operator) => edges.filter((edge) => edge.sourceOperator === operator),
      contextOf: (node) => this.#contextOf(node),
      blame: (error, node) => this.#blame(error, node),
    });
  }

  #contextOf(node: OperatorNode): OperatorContext {
    return createOperatorContext(this.#host, this.#job, this.descriptor, {
      node,
      postTimer: (run) => this.#postTimer(node, run),
      armedTimers: this.#cancelTimers,
      shouldYield: () => this.#host.quantum.step() || this.#held.hasInner,
      quantum: this.#host.quantum,
      inBackground: (step) => {
        this.#host.wake();
        return this.#background.add(step);
      },
      continueLater: (step) => {
        this.#held.add(node, step);
        this.#channels.refresh();
        this.#host.wake();
      },
      wakeUp: () => this.#wakeUp(),
    });
  }

  #postTimer(node: OperatorNode, run: () => void): void {
    if (this.hasEnded) return;
    this.#timers.push(() => this.#chainOrThrow().guard(node, run));
    this.#host.wake();
  }

  #wakeUp(): void {
    this.#source.wakeUp();
    this.#host.wake();
  }

  #blame(error: unknown, node: OperatorNode): void {
    this.#blamed ??= { error, node };
    this.#host.quantum.stop();
  }

  #createPath(chain: OperatorChain): RecordPath {
    const owner: RecordPathOwner = {
      quantum: this.#host.quantum,
      running: this.#host.running,
      task: this.#number,
      blame: (error, node) => this.#blame(error, node),
      fail: (error) => this.fail(error),
    };
    const { inputs } = this.#channels;
    const surroundings = { chain, inputs, edges: this.#edges };
    return createRecordPath(this.#job, this.descriptor, surroundings, owner);
  }

  #guarded<T>(run: () => T): T | undefined {
    try {
      const result = this.#inContext(run);
      // An operator's exception that a user function above it swallowed is still its failure.
      if (this.#blamed !== undefined) this.fail(this.#blamed.error);
      return result;
    } catch (error) {
      this.fail(error);
      return undefined;
    }
  }

  #inContext<T>(run: () => T): T {
    const before = this.#enter();
    try {
      return run();
    } finally {
      this.#leave(before);
    }
  }

  #enter(): number {
    const { running } = this.#host;
    const before = running[0]!;
    running[0] = this.#number;
    return before;
  }

  #leave(before: number): void {
    this.#host.running[0] = before;
  }

  #setBlocked(channel: number, isBlocked: boolean): void {
    const input = this.#channels.inputs[channel];
    if (input !== undefined) input.isBlocked = isBlocked;
    if (!isBlocked) this.#host.wake();
  }

  /** Tail to head; every operator is closed, the first failure is returned. */
  #closeOperators(): Promise<unknown> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<unknown> {
    for (const cancel of this.#cancelTimers) cancel();
    this.#cancelTimers.clear();
    this.#background.close();
    this.#commands.length = 0;
    this.#timers.length = 0;
    // Closing what is still opening would surprise operators; the host bounds the wait by ending the thread.
    await this.#opening?.catch(() => undefined);
    let failure: unknown;
    for (const node of [...(this.#chain?.nodes ?? [])].reverse()) {
      try {
        await node.operator.close();
      } catch (error) {
        failure ??= error;
        this.#blame(error, node);
        this.#host.env.log.warn(
          { err: error, operator: node.name },
          'operator did not close cleanly',
        );
      }
    }
    return failure;
  }

  #chainOrThrow(): OperatorChain {
    if (this.#chain === undefined) throw new InvariantError('the task has no operators');
    return this.#chain;
  }

  #setState(state: ExecutionState, error?: Error): void {
    this.#state = state;
    this.#channels.refresh();
    const { attemptId } = this.context;
    const failure = error === undefined ? {} : { failure: toFailure(error) };
    // The last figures go ahead of the end: nobody asks a task that is gone.
    if (isTerminal(executionTransitions, state)) {
      this.#host.ports.report({ kind: 'metrics', tasks: [this.metrics()] });
    }
    this.#host.ports.report({ kind: 'taskState', attemptId, state, ...failure });
  }
}
