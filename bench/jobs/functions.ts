/** User functions of the benchmark jobs. */
import {
  ValueStateDescriptor,
  type Collector,
  type KeyedProcessContext,
  type KeyedProcessFunction,
  type RuntimeContext,
  type ValueState,
} from 'millrace';
import type { Counted } from './arguments.js';
import { checkOfTrade, type Trade } from './records.js';

export interface Priced {
  readonly key: number;
  readonly price: number;
}

/** The running count of each key. */
export class CountByKey implements KeyedProcessFunction<number, Priced, Counted> {
  #count!: ValueState<number, number>;

  open(context: RuntimeContext): void {
    this.#count = context.getState(new ValueStateDescriptor('count', 0));
  }

  processElement(
    value: Priced,
    _context: KeyedProcessContext<number>,
    out: Collector<Counted>,
  ): void {
    const count = this.#count.value() + 1;
    this.#count.update(count);
    out.collect({ count, check: value.price });
  }
}

/** Counts by key and reads every field of the record. */
export class CountTrades implements KeyedProcessFunction<number, Trade, Counted> {
  #count!: ValueState<number, number>;

  open(context: RuntimeContext): void {
    this.#count = context.getState(new ValueStateDescriptor('count', 0));
  }

  processElement(
    value: Trade,
    _context: KeyedProcessContext<number>,
    out: Collector<Counted>,
  ): void {
    const count = this.#count.value() + 1;
    this.#count.update(count);
    out.collect({ count, check: checkOfTrade(value) });
  }
}

/** Counts by key, reads every field and keeps the last records whole: none of it can be left undecoded. */
export class KeepRecords<T> implements KeyedProcessFunction<number, T, Counted> {
  readonly #check: (value: T) => number;
  readonly #kept: (T | undefined)[];
  #next = 0;
  #count!: ValueState<number, number>;

  constructor(check: (value: T) => number, kept: number) {
    this.#check = check;
    this.#kept = new Array<T | undefined>(kept).fill(undefined);
  }

  open(context: RuntimeContext): void {
    this.#count = context.getState(new ValueStateDescriptor('count', 0));
  }

  processElement(value: T, _context: KeyedProcessContext<number>, out: Collector<Counted>): void {
    this.#kept[this.#next] = value;
    this.#next = this.#next + 1 === this.#kept.length ? 0 : this.#next + 1;
    const count = this.#count.value() + 1;
    this.#count.update(count);
    out.collect({ count, check: this.#check(value) });
  }
}

export interface Word {
  readonly word: string;
  readonly amount: number;
}

export interface WordTotal {
  readonly count: number;
  readonly sum: number;
}

/** Count and sum of each word in one state. */
export class TotalOfWord implements KeyedProcessFunction<string, Word, Counted> {
  #total!: ValueState<WordTotal>;

  open(context: RuntimeContext): void {
    this.#total = context.getState(new ValueStateDescriptor<WordTotal>('total'));
  }

  processElement(
    value: Word,
    _context: KeyedProcessContext<string>,
    out: Collector<Counted>,
  ): void {
    const before = this.#total.value();
    const total =
      before === undefined
        ? { count: 1, sum: value.amount }
        : { count: before.count + 1, sum: before.sum + value.amount };
    this.#total.update(total);
    out.collect({ count: total.count, check: total.sum & 1 });
  }
}

/** The same in two states of a number each. */
export class TwoTotalsOfWord implements KeyedProcessFunction<string, Word, Counted> {
  #count!: ValueState<number, number>;
  #sum!: ValueState<number, number>;

  open(context: RuntimeContext): void {
    this.#count = context.getState(new ValueStateDescriptor('count', 0));
    this.#sum = context.getState(new ValueStateDescriptor('sum', 0));
  }

  processElement(
    value: Word,
    _context: KeyedProcessContext<string>,
    out: Collector<Counted>,
  ): void {
    const count = this.#count.value() + 1;
    const sum = this.#sum.value() + value.amount;
    this.#count.update(count);
    this.#sum.update(sum);
    out.collect({ count, check: sum & 1 });
  }
}
