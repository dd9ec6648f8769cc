/**
 * How operators take part in a generated chain. The chain compiler (lib/task/chain-compiler) makes one
 * JavaScript function per chain out of what its operators generate; an operator that generates nothing is
 * called through `processElement`, as in the interpreter.
 *
 * What an operator generates must do exactly what its `processElement` does, on the same fields: both may
 * run in turn on one operator (records from a channel by generated code, timers by the interpreter).
 */
import type { StreamOperator } from './stream-operator.js';

/** JavaScript expressions of the record at hand; each is a plain identifier and may be used often. */
export interface RecordNames {
  readonly value: string;
  /** Event-time ms or NO_TIMESTAMP. */
  readonly timestamp: string;
  /**
   * Hash of the record's key (`hashKey`), or undefined where the producer of a direct call had none: only for the
   * head of a chain behind a HASH edge. Use as `keyHash ?? hashKey(key)`.
   */
  readonly keyHash?: string;
}

/** What an operator may use while its code is generated. */
export interface CodeScope {
  readonly operatorName: string;
  /**
   * A parameter of the generated function; answers its name, made from `hint` and the operator's number. `value`
   * is asked once, after all operators of the chain are open; text is also generated without any of that.
   */
  bind(hint: string, value: () => unknown): string;
  /** A name for a `const` or `let` of this operator: `value_2`. */
  local(hint: string): string;
  /**
   * Statements that pass a record on to whatever takes the operator's output, in the same function. At most
   * once per operator: results of a second place, or from inside a call of user code, go through `emitter`.
   */
  emit(record: RecordNames): string;
  /**
   * Name of a function `(value, timestamp) => void` that does the same. What the operator emits outside records
   * (timers, windows, finish) takes this way too, when it was asked for.
   */
  emitter(): string;
  /**
   * Name of a Collector of this operator's own: set its `timestamp` (the record's) and hand it to user code. What it
   * is given goes through `emitter`.
   */
  collector(): string;
  /**
   * Statement after which whatever is thrown is blamed on this operator, as user code that threw: generated code
   * begins with it. (`emitter` and `collector` give the blame back when they return.)
   */
  readonly blame: string;
}

/** An operator with code of its own. */
export interface GeneratesCode extends StreamOperator {
  /** Statements for one record, as `processElement`; no `return`, `break` or `continue` out of them. */
  generate(scope: CodeScope, record: RecordNames): string;
}

/** A source, whose reader's `collect(value, timestamp, splitId)` is generated. */
export interface GeneratesSourceCode extends StreamOperator {
  /** As `generate`; `splitId` names the third argument. The second may be undefined. */
  generateCollect(scope: CodeScope, record: RecordNames, splitId: string): string;
  /** Takes the generated function in place of its own. */
  useCollect(collect: (value: unknown, timestamp?: number, splitId?: string) => void): void;
}

export function generatesCode(operator: StreamOperator): operator is GeneratesCode {
  return 'generate' in operator;
}

export function generatesSourceCode(operator: StreamOperator): operator is GeneratesSourceCode {
  return 'generateCollect' in operator;
}

/**
 * A user function that is either a plain function or an object with a method: the expression that calls it,
 * `this` intact, without a wrapper in between.
 */
export function callee(scope: CodeScope, hint: string, fn: object, method: string): string {
  const name = scope.bind(hint, () => fn);
  return typeof fn === 'function' ? name : `${name}.${method}`;
}
