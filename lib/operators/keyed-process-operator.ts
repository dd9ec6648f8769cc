import type { FunctionOf, KeySelector } from '../api/functions.js';
import type { KeyedProcessFunction, OnTimerContext, TimeDomain } from '../api/process-function.js';
import { NO_TIMESTAMP } from '../record/stream-element.js';
import { TimedKeyedOperator } from './keyed-operator.js';
import { callee, type CodeScope, type GeneratesCode, type RecordNames } from './operator-code.js';
import { RecordCollector } from './record-collector.js';
import type { OperatorContext } from './stream-operator.js';
import { bindObject } from './user-function.js';

/** Runs a KeyedProcessFunction: state and timers of the current key, side outputs. */
export class KeyedProcessOperator<K, T, R> extends TimedKeyedOperator implements GeneratesCode {
  readonly #fn: KeyedProcessFunction<K, T, R>;
  #collector!: RecordCollector<R>;
  #functionContext!: OnTimerContext<K>;
  #timeDomain: TimeDomain = 'event';

  constructor(keySelector: KeySelector<T, K>, fn: FunctionOf<KeyedProcessFunction<K, T, R>>) {
    super(keySelector as KeySelector<unknown, unknown>);
    this.#fn = bindObject(fn);
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    const collector = new RecordCollector<R>(context.output);
    const domain = (): TimeDomain => this.#timeDomain;
    this.#collector = collector;
    this.#functionContext = {
      get timestamp() {
        return collector.timestampOrUndefined;
      },
      get timeDomain() {
        return domain();
      },
      timerService: this.timerService,
      output: (tag, value) => {
        collector.collectSide(tag, value);
      },
      getCurrentKey: () => this.backend.currentKey as K,
    };
  }

  protected override functions(): readonly object[] {
    return [this.#fn];
  }

  processElement(value: unknown, timestamp: number): void {
    this.backend.setCurrentKey(this.selectKey(value));
    this.#collector.timestamp = timestamp;
    try {
      this.#fn.processElement(value as T, this.#functionContext, this.#collector);
    } catch (error) {
      throw this.blame(error);
    }
    this.backend.clearCurrentKey();
  }

  generate(scope: CodeScope, record: RecordNames): string {
    const process = callee(scope, 'process', this.#fn, 'processElement');
    const collector = scope.bind('record', () => this.#collector);
    const context = scope.bind('context', () => this.#functionContext);
    const backend = scope.bind('backend', () => this.backend);
    const out = scope.collector();
    return `${this.generateKey(scope, record)}
${collector}.timestamp = ${out}.timestamp = ${record.timestamp};
${process}(${record.value}, ${context}, ${out});
${backend}.clearCurrentKey();`;
  }

  protected override fireTimer(domain: TimeDomain, timestamp: number): void {
    this.#timeDomain = domain;
    // Results of a processing-time timer have no event time.
    this.#collector.timestamp = domain === 'event' ? timestamp : NO_TIMESTAMP;
    try {
      this.#fn.onTimer?.(timestamp, this.#functionContext, this.#collector);
    } catch (error) {
      throw this.blame(error);
    }
  }
}
