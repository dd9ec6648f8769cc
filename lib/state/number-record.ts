/**
 * Objects of numbers only ({ count, sum }) as rows of doubles. A state of such objects makes and keeps a new
 * object for each record otherwise, which the garbage collector then copies about (at a million keys half of the
 * time). Exact: a row stands for an object with just these fields in this order, all numbers; what is different is
 * kept as it is. Symbol keys are looked for where the shape is found, not in every object.
 */
import { compileFunction } from 'node:vm';

/** Longer objects are rarely accumulators. */
const fieldsMax = 8;
const identifier = /^[A-Za-z_$][\w$]*$/;

/** How objects of one shape are read from and written to rows. Generated. */
export interface NumberRecord {
  readonly width: number;
  /** The object of the row that begins at `at`; NaN when there is none. */
  read(row: readonly number[], at: number): unknown;
  /** False when it is not of this shape, or its first number is NaN, which means that there is none. */
  write(row: number[], at: number, value: object): boolean;
}

/** Undefined when the value is no plain object of numbers. */
export function numberRecordOf(value: unknown): NumberRecord | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  if (Object.getPrototypeOf(value) !== Object.prototype) return undefined;
  const names = Reflect.ownKeys(value);
  if (names.length === 0 || names.length > fieldsMax) return undefined;
  for (const name of names) {
    if (typeof name !== 'string' || name === '__proto__' || !identifier.test(name))
      return undefined;
    const field = Object.getOwnPropertyDescriptor(value, name);
    if (field?.enumerable !== true || typeof field.value !== 'number') return undefined;
  }
  return compile(names as string[]);
}

let generated = 0;

function compile(names: readonly string[]): NumberRecord {
  const { length } = names;
  const rest = names.slice(1).map((name, i) => `, ${name}: row[at + ${String(i + 1)}]`);
  const order = names.map((name, i) => `n === ${String(i)} ? name === '${name}' : `);
  const locals = names.map((name, i) => `const v${String(i)} = value.${name};`);
  const checks = names.map((_, i) => `typeof v${String(i)} !== 'number'`);
  const stores = names.map((_, i) => `row[at + ${String(i)}] = v${String(i)};`);
  // The text is unique: V8 shares what it learns about a function among equal texts.
  generated += 1;
  const text = `// State of objects { ${names.join(', ')} }, ${String(generated)}
return {
  width: ${String(length)},
  read(row, at) {
    const first = row[at];
    return first === first ? { ${names[0]!}: first${rest.join('')} } : NaN;
  },
  write(row, at, value) {
    if (prototypeOf(value) !== plain) return false;
    let n = 0;
    for (const name in value) {
      if (!(${order.join('')}false)) return false;
      n += 1;
    }
    if (n !== ${String(length)}) return false;
    ${locals.join(' ')}
    if (${checks.join(' || ')} || v0 !== v0) return false;
    ${stores.join(' ')}
    return true;
  },
};`;
  const make = compileFunction(text, ['prototypeOf', 'plain']) as (
    prototypeOf: (value: object) => unknown,
    plain: object,
  ) => NumberRecord;
  return make((value) => Object.getPrototypeOf(value) as unknown, Object.prototype);
}
