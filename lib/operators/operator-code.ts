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
  /** Name of a function `(tag: string, value, timestamp) => void` for side outputs. */
  sideEmitter(): string;
  /** Statement that blames what is thrown from here on on this operator; generated code begins with it, and user code is followed by it. */
  readonly blame: string;
}

/** An operator with code of its own. */
export interface GeneratesCode extends StreamOperator {
  /** Statements for one record, as `processElement`. Must not `return`; may `break` out of the block `label`. */
  generate(scope: CodeScope, record: RecordNames): string;
}

export function generatesCode(operator: StreamOperator): operator is GeneratesCode {
  return 'generate' in operator;
}

/**
 * A user function that is either a plain function or an object with a method: the expression that calls it,
 * `this` intact, without a wrapper in between.
 */
export function callee(scope: CodeScope, hint: string, fn: object, method: string): string {
  const name = scope.bind(hint, () => fn);
  return typeof fn === 'function' ? name : `${name}.${method}`;
}
