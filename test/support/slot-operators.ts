/** Operators for tests of the slot runtime. Records say where they come from and which way they took. */
import type {
  OperatorContext,
  OperatorEvent,
  OperatorSnapshotInProgress,
  SourceStreamOperator,
  StreamOperator,
} from '../../lib/operators/stream-operator.js';
import type { OperatorSubtaskState } from '../../lib/state/state-handle.js';

export interface TestRecord {
  /** `<vertex>.<subtask>` of the source. */
  readonly from: string;
  readonly seq: number;
  readonly via: string;
  readonly padding?: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function stateOf(value: unknown): OperatorSubtaskState {
  return { operator: { kind: 'inline', bytes: encoder.encode(JSON.stringify(value)) } };
}

export function readState(state: OperatorSubtaskState | undefined): unknown {
  const handle = state?.operator;
  return handle?.kind === 'inline' ? JSON.parse(decoder.decode(handle.bytes)) : undefined;
}

/** Passes everything on; the base of the others. */
export class TestOperator implements StreamOperator {
  context!: OperatorContext;
  readonly calls: string[] = [];

  setup(context: OperatorContext): void {
    this.context = context;
  }
  open(): void | Promise<void> {
    this.calls.push('open');
  }
  processElement(value: unknown, timestamp: number): void {
    this.context.output.collect(value, timestamp);
  }
  processWatermark(timestamp: number): void {
    this.context.output.emitWatermark(timestamp);
  }
  processWatermarkStatus(active: boolean): void {
    this.context.output.emitWatermarkStatus(active);
  }
  prepareSnapshotPreBarrier(_checkpointId: number): void {}
  snapshotState(_checkpointId: number): OperatorSnapshotInProgress {
    const state = stateOf(this.capture());
    return { finish: async () => state };
  }
  capture(): unknown {
    return null;
  }
  notifyCheckpointComplete(checkpointId: number): void | Promise<void> {
    this.calls.push(`complete ${String(checkpointId)}`);
  }
  notifyCheckpointAborted(checkpointId: number): void {
    this.calls.push(`aborted ${String(checkpointId)}`);
  }
  finish(): void {
    this.calls.push('finish');
  }
  close(): void | Promise<void> {
    this.calls.push('close');
  }
}

/** Stamps its place on records. */
export class StampOperator extends TestOperator {
  override processElement(value: unknown, timestamp: number): void {
    const record = value as TestRecord;
    const { operatorName, subtaskIndex } = this.context;
    const via = `${record.via}>${operatorName}.${String(subtaskIndex)}`;
    this.context.output.collect({ ...record, via }, timestamp);
  }
}

/** Fires `steps` timers at each watermark, one a step, and then passes the watermark on. */
export class SlowWatermarkOperator extends TestOperator {
  readonly #steps: number;
  pending = 0;

  constructor(steps: number) {
    super();
    this.#steps = steps;
  }
  override processElement(value: unknown, timestamp: number): void {
    if (this.pending > 0) throw new Error('a record came while timers were firing');
    super.processElement(value, timestamp);
  }
  override snapshotState(checkpointId: number): OperatorSnapshotInProgress {
    if (this.pending > 0) throw new Error('a barrier came while timers were firing');
    return super.snapshotState(checkpointId);
  }
  override processWatermark(timestamp: number): void {
    if (this.pending > 0) throw new Error('a watermark came while timers were firing');
    this.pending = this.#steps;
    this.context.continueLater(() => {
      while (this.pending > 0) {
        this.pending -= 1;
        if (this.context.shouldYield() && this.pending > 0) return false;
      }
      this.context.output.emitWatermark(timestamp);
      return true;
    });
  }
  override finish(): void {
    if (this.pending > 0) throw new Error('finished while timers were firing');
    super.finish();
  }
}

export interface TestSourceOptions {
  readonly records: number;
  /** Called before each record; true: have nothing for `pauseMs` of processing time. */
  readonly pauses?: () => boolean;
  readonly watermarkEvery?: number;
  readonly paddingOf?: (seq: number) => string | undefined;
}

export class TestSource extends TestOperator implements SourceStreamOperator {
  readonly #options: TestSourceOptions;
  position = 0;
  #isPaused = false;

  constructor(options: TestSourceOptions) {
    super();
    this.#options = options;
  }
  override open(): void {
    const handle = this.context.restore?.operator[0];
    if (handle !== undefined) this.position = readState({ operator: handle }) as number;
  }
  emitNext(): 'more' | 'nothing' | 'end' {
    const { records, pauses, watermarkEvery, paddingOf } = this.#options;
    if (this.position >= records) return 'end';
    if (this.#isPaused) return 'nothing';
    if (pauses?.() === true) {
      this.#isPaused = true;
      this.context.processingTime.registerTimer(this.context.processingTime.now() + 10, () => {
        this.#isPaused = false;
        this.context.wakeUp();
      });
      return 'nothing';
    }
    const seq = this.position;
    this.position += 1;
    const { operatorName, subtaskIndex, output } = this.context;
    const from = `${operatorName}.${String(subtaskIndex)}`;
    const padding = paddingOf?.(seq);
    output.collect({ from, seq, via: from, ...(padding !== undefined && { padding }) }, seq);
    if (watermarkEvery !== undefined && seq % watermarkEvery === 0) output.emitWatermark(seq);
    return 'more';
  }
  override capture(): number {
    return this.position;
  }
  handleOperatorEvent(event: OperatorEvent): void {
    this.calls.push(event.kind);
  }
}

/** Counts by source and checks that each way keeps its order; complains by throwing. */
export class CheckingSink extends TestOperator {
  /** Records by `from`. */
  readonly counts: Record<string, number> = {};
  readonly #lastSeq = new Map<string, number>();
  watermark = -Infinity;

  override processElement(value: unknown): void {
    const { from, seq, via } = value as TestRecord;
    const last = this.#lastSeq.get(via) ?? -1;
    if (seq <= last) throw new Error(`${via}: ${String(seq)} after ${String(last)}`);
    this.#lastSeq.set(via, seq);
    this.counts[from] = (this.counts[from] ?? 0) + 1;
  }
  override processWatermark(timestamp: number): void {
    if (timestamp <= this.watermark) throw new Error('the watermark went back');
    this.watermark = timestamp;
  }
  override processWatermarkStatus(): void {}
  override capture(): unknown {
    return this.counts;
  }
}
