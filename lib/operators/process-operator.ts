import type { FunctionOf } from '../api/functions.js';
import type { ProcessContext, ProcessFunction, TimerService } from '../api/process-function.js';
import { MillraceError } from '../base/errors.js';
import { callee, type CodeScope, type GeneratesCode, type RecordNames } from './operator-code.js';
import { AbstractOperator } from './abstract-operator.js';
import { RecordCollector } from './record-collector.js';
import type { OperatorContext } from './stream-operator.js';
import { bindObject } from './user-function.js';

/** Runs a ProcessFunction on a stream that is not keyed: side outputs and time, no timers. */
export class ProcessOperator<T, R> extends AbstractOperator implements GeneratesCode {
  readonly #fn: ProcessFunction<T, R>;
  #collector!: RecordCollector<R>;
  #functionContext!: ProcessContext;

  constructor(fn: FunctionOf<ProcessFunction<T, R>>) {
    super();
    this.#fn = bindObject(fn);
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    const collector = new RecordCollector<R>(context.output);
    this.#collector = collector;
    this.#functionContext = {
      get timestamp() {
        return collector.timestampOrUndefined;
      },
      timerService: this.#createTimerService(),
      output: (tag, value) => {
        collector.collectSide(tag, value);
      },
    };
  }

  protected override functions(): readonly object[] {
    return [this.#fn];
  }

  processElement(value: unknown, timestamp: number): void {
    this.#collector.timestamp = timestamp;
    try {
      this.#fn.processElement(value as T, this.#functionContext, this.#collector);
    } catch (error) {
      throw this.blame(error);
    }
  }

  generate(scope: CodeScope, { value, timestamp }: RecordNames): string {
    const process = callee(scope, 'process', this.#fn, 'processElement');
    const collector = scope.bind('record', () => this.#collector);
    const context = scope.bind('context', () => this.#functionContext);
    const out = scope.collector();
    return `${scope.blame}
${collector}.timestamp = ${out}.timestamp = ${timestamp};
${process}(${value}, ${context}, ${out});`;
  }

  #createTimerService(): TimerService {
    const { context } = this;
    const watermark = (): number => this.currentWatermark;
    const refuse = (): never => {
      throw new MillraceError(
        'JOB_INVALID',
        `${context.operatorName}: timers need a keyed stream; call keyBy before it`,
      );
    };
    return {
      get currentWatermark() {
        return watermark();
      },
      get currentProcessingTime() {
        return context.processingTime.now();
      },
      registerEventTimeTimer: refuse,
      registerProcessingTimeTimer: refuse,
      deleteEventTimeTimer: refuse,
      deleteProcessingTimeTimer: refuse,
    };
  }
}
