/**
 * What all operators share: context, watermark, operator state, snapshot and restore, and loops that may
 * be long and are cut between steps. Subclasses override what they need.
 */
import type { RuntimeContext } from '../api/runtime-context.js';
import { MillraceError } from '../base/errors.js';
import type { Counter, Gauge } from '../base/metrics.js';
import { MIN_WATERMARK } from '../record/stream-element.js';
import { OperatorStateBackend } from '../state/operator-state-backend.js';
import type { KeyedSnapshot } from '../state/keyed-snapshot.js';
import type { KeyedStateBackend } from '../state/keyed-state-backend.js';
import type { HashMapStates } from '../state/hash-map-states.js';
import type { OperatorSubtaskState } from '../state/state-handle.js';
import type {
  OperatorContext,
  OperatorSnapshotInProgress,
  StreamOperator,
} from './stream-operator.js';
import { asRich, userError } from './user-function.js';

/** How long a slice of a snapshot's encoding holds up the records. */
const sliceMs = 1;

function givenUp(checkpointId: number): MillraceError {
  return new MillraceError('CLOSED', `checkpoint ${checkpointId} was aborted`);
}

export abstract class AbstractOperator implements StreamOperator {
  protected context!: OperatorContext;
  protected readonly operatorState = new OperatorStateBackend();
  /** Seen by functions: rises before the timers it fires. */
  protected currentWatermark = MIN_WATERMARK;
  /** Forwarded, with all its timers fired: what a snapshot records. */
  protected completedWatermark = MIN_WATERMARK;
  /** Long loops in order of arrival; the first is running or waits for its next quantum. */
  readonly #steps: (() => boolean)[] = [];
  /** Keyed state that is being encoded, by checkpoint; several may overlap. */
  readonly #snapshots = new Map<number, KeyedSnapshot>();

  setup(context: OperatorContext): void {
    this.context = context;
  }

  async open(): Promise<void> {
    await this.restoreState();
    this.onRestored();
    const functions = this.functions().map(asRich);
    const runtime = this.runtimeContext();
    for (const fn of functions) {
      await this.guard(() => fn?.open?.(runtime));
    }
    this.onOpened();
  }

  abstract processElement(value: unknown, timestamp: number): void;

  processWatermark(timestamp: number): void {
    this.runResumable(() => {
      // After a restore inputs begin lower than where this operator was: time does not go back.
      if (timestamp < this.currentWatermark) return true;
      this.currentWatermark = timestamp;
      if (!this.advanceEventTime(timestamp)) return false;
      this.completedWatermark = timestamp;
      this.context.output.emitWatermark(timestamp);
      return true;
    });
  }

  processWatermarkStatus(active: boolean): void {
    this.context.output.emitWatermarkStatus(active);
  }

  prepareSnapshotPreBarrier(_checkpointId: number): void {
    // Most operators emit nothing before a barrier.
  }

  snapshotState(checkpointId: number): OperatorSnapshotInProgress {
    this.onSnapshot(checkpointId);
    const keyed = this.keyedBackend()?.snapshot();
    if (keyed !== undefined) this.#snapshots.set(checkpointId, keyed);
    const operator = this.operatorState.snapshot();
    const watermark = this.completedWatermark;
    const { storage, attemptId, operatorId } = this.context;
    const name = `${attemptId}-${operatorId}`;
    return {
      finish: async (): Promise<OperatorSubtaskState> => {
        await this.syncSideEffects();
        if (keyed !== undefined) await this.#encode(checkpointId, keyed);
        const keyedHandle = await keyed?.write(storage, checkpointId, `${name}-keyed`);
        const operatorHandle = await operator.write(storage, checkpointId, `${name}-operator`);
        return {
          ...(keyedHandle !== undefined && { keyed: keyedHandle }),
          ...(operatorHandle !== undefined && { operator: operatorHandle }),
          ...(watermark !== MIN_WATERMARK && { watermark }),
        };
      },
    };
  }

  /** Beside the records, in slices; until it is done, state that is about to change is copied. */
  async #encode(checkpointId: number, snapshot: KeyedSnapshot): Promise<void> {
    const { clock } = this.context;
    try {
      await this.context.inBackground(() => {
        if (this.#snapshots.get(checkpointId) !== snapshot) throw givenUp(checkpointId);
        const end = clock.now() + sliceMs;
        return snapshot.step(() => clock.now() >= end);
      });
    } finally {
      this.#giveUp(checkpointId);
    }
  }

  /** Nothing is copied for the snapshot any more. */
  #giveUp(checkpointId: number): void {
    this.#snapshots.get(checkpointId)?.cancel();
    this.#snapshots.delete(checkpointId);
  }

  notifyCheckpointComplete(_checkpointId: number): void | Promise<void> {
    // Most operators have no side effects to publish.
  }

  notifyCheckpointAborted(checkpointId: number): void {
    this.#giveUp(checkpointId);
  }

  finish(): void {
    // Timers and windows fired with MAX_WATERMARK; nothing is left.
  }

  async close(): Promise<void> {
    let failure: unknown;
    for (const fn of this.functions()) {
      try {
        await asRich(fn)?.close?.();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw userError(this.context.operatorName, failure);
  }

  /** Functions with a life of their own, in order of opening. */
  protected functions(): readonly object[] {
    return [];
  }

  /** State is restored; functions are not open yet. */
  protected onRestored(): void {
    // For subclasses.
  }

  protected onOpened(): void {
    // For subclasses.
  }

  /** Synchronous capture into the state backends. */
  protected onSnapshot(_checkpointId: number): void {
    // For subclasses.
  }

  /** Asynchronous part before the state is written: what must be durable with the checkpoint. */
  protected syncSideEffects(): Promise<void> {
    return Promise.resolve();
  }

  protected keyedBackend(): KeyedStateBackend | undefined {
    return undefined;
  }

  protected keyedStates(): HashMapStates | undefined {
    return undefined;
  }

  /** Fires what is due; false when it has to go on in a later quantum. */
  protected advanceEventTime(_timestamp: number): boolean {
    return true;
  }

  /** Runs `step` until it returns true, now if nothing is waiting, in later quanta otherwise. */
  protected runResumable(step: () => boolean): void {
    this.#steps.push(step);
    if (this.#steps.length === 1 && !this.#runSteps()) {
      this.context.continueLater(() => this.#runSteps());
    }
  }

  #runSteps(): boolean {
    for (;;) {
      const step = this.#steps[0];
      if (step === undefined) return true;
      if (!step()) return false;
      this.#steps.shift();
    }
  }

  /** Calls user code; what it throws becomes USER_FUNCTION of this operator. */
  protected async guard(call: () => unknown): Promise<void> {
    try {
      await call();
    } catch (error) {
      throw userError(this.context.operatorName, error);
    }
  }

  /** What user code threw, blamed on this operator unless another one has the blame. */
  protected blame(error: unknown): MillraceError {
    return userError(this.context.operatorName, error);
  }

  /** The registry is the operator's own: whoever reports adds the scope. */
  protected counter(name: string): Counter {
    return this.context.metrics.counter(name);
  }

  protected runtimeContext(): RuntimeContext {
    const { context } = this;
    const states = (): HashMapStates => this.#statesOrThrow();
    const gauge = (name: string): Gauge => context.metrics.gauge(name);
    return {
      jobId: context.jobId,
      jobName: context.jobName,
      operatorName: context.operatorName,
      subtaskIndex: context.subtaskIndex,
      parallelism: context.parallelism,
      maxParallelism: context.maxParallelism,
      generation: context.generation,
      metrics: { counter: (name) => this.counter(name), gauge },
      getState: (descriptor) => states().getState(descriptor),
      getListState: (descriptor) => states().getListState(descriptor),
      getMapState: (descriptor) => states().getMapState(descriptor),
      getReducingState: (descriptor) => states().getReducingState(descriptor),
    };
  }

  #statesOrThrow(): HashMapStates {
    const states = this.keyedStates();
    if (states !== undefined) return states;
    throw new MillraceError(
      'JOB_INVALID',
      `${this.context.operatorName}: state needs a keyed stream; call keyBy before it`,
    );
  }

  protected async restoreState(): Promise<void> {
    const { restore, storage, restoreBaseDirectory = '' } = this.context;
    if (restore === undefined) return;
    if (restore.watermark !== undefined) {
      this.currentWatermark = restore.watermark;
      this.completedWatermark = restore.watermark;
    }
    const backend = this.keyedBackend();
    for (const handle of restore.keyed) {
      if (backend === undefined) {
        throw new MillraceError(
          'CHECKPOINT_INCOMPATIBLE',
          `${this.context.operatorName} has keyed state in the checkpoint but is not keyed in the job; give it another uid`,
        );
      }
      backend.restore(handle, await storage.read(handle.data, restoreBaseDirectory));
    }
    const data: Uint8Array[] = [];
    for (const handle of restore.operator) {
      data.push(await storage.read(handle, restoreBaseDirectory));
    }
    const { subtaskIndex: index, parallelism } = this.context;
    this.operatorState.restore(
      data,
      restore.unchangedParallelism ? undefined : { index, parallelism },
    );
  }
}
