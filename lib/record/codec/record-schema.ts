/**
 * The shape of the records of an edge, as columns: declared or learned from the first records, then only ever
 * widened (int32 to number, a value to one that may be null, anything to `any`), so that changes end.
 */
import { NO_TIMESTAMP } from '../stream-element.js';

/** Type of a field. `any`: whatever a record may hold, each value encoded by itself, which is slower. */
export type FieldType = 'int32' | 'number' | 'boolean' | 'string' | 'bigint' | 'date' | 'any';

/**
 * A declared shape: one type for a stream of primitive values, or the fields of plain objects in the order
 * of their keys. `type?` allows null and undefined. A record of another shape is not an error: it makes the schema wider,
 * or its batch a general one.
 */
export type RecordSchema =
  FieldType | `${FieldType}?` | { readonly fields: Readonly<Record<string, RecordSchema>> };

export interface LeafNode {
  readonly kind: FieldType;
  readonly isNullable: boolean;
}

export interface ObjectNode {
  readonly kind: 'object';
  readonly fields: readonly (readonly [name: string, node: SchemaNode])[];
}

export type SchemaNode = LeafNode | ObjectNode;

/** `none`: no record has one; `offset`: int32 ms from the first of the batch; `exact`: any number. */
export type TimestampKind = 'none' | 'offset' | 'exact';

export interface BatchSchema {
  readonly root: SchemaNode;
  readonly timestamps: TimestampKind;
  /** Positions in the text of a batch take 32 bits instead of 16. */
  readonly isWideText: boolean;
}

/** Wider records make code that V8 optimizes badly. */
const columnsMax = 100;
const depthMax = 4;

const any: LeafNode = { kind: 'any', isNullable: false };
const leaf = (kind: FieldType, isNullable = false): LeafNode => ({ kind, isNullable });
/** Seen: only null and undefined. Takes the first type that comes. */
const nothing = leaf('boolean', true);

/** The narrowest node for a value; undefined when it cannot be a record of columns at all. */
export function nodeOf(value: unknown, depth = 0): SchemaNode | undefined {
  switch (typeof value) {
    case 'number':
      return leaf((value | 0) === value && !Object.is(value, -0) ? 'int32' : 'number');
    case 'string':
      return leaf('string');
    case 'boolean':
      return leaf('boolean');
    case 'bigint':
      return BigInt.asIntN(64, value) === value ? leaf('bigint') : any;
    case 'undefined':
      return nothing;
    case 'object':
      return value === null ? nothing : nodeOfObject(value, depth);
    default:
      return undefined;
  }
}

function nodeOfObject(value: object, depth: number): SchemaNode | undefined {
  const prototype = Object.getPrototypeOf(value) as unknown;
  if (prototype === Date.prototype) return leaf('date');
  if (prototype !== Object.prototype) return any;
  if (Object.getOwnPropertySymbols(value).length > 0) return undefined;
  const names = Object.keys(value);
  if (depth >= depthMax || names.length > columnsMax || names.includes('__proto__')) return any;
  const fields: [string, SchemaNode][] = [];
  for (const name of names) {
    const node = nodeOf((value as Record<string, unknown>)[name], depth + 1);
    if (node === undefined) return undefined;
    fields.push([name, node]);
  }
  return { kind: 'object', fields };
}

/** The narrowest node that holds the values of both; the first itself when it holds those of the second. */
export function joinNodes(a: SchemaNode, b: SchemaNode): SchemaNode {
  if (a.kind === 'object' && b.kind === 'object') return joinObjects(a, b);
  if (a.kind === 'object' || b.kind === 'object') return any;
  if (a.kind === 'any' || b.kind === 'any') return a.kind === 'any' ? a : b;
  const isNullable = a.isNullable || b.isNullable;
  const kind = a.kind === b.kind ? a.kind : joinKinds(a, b);
  if (kind === 'any') return any;
  return kind === a.kind && isNullable === a.isNullable ? a : leaf(kind, isNullable);
}

function joinKinds(a: LeafNode, b: LeafNode): FieldType {
  if (isNothing(a)) return b.kind;
  if (isNothing(b)) return a.kind;
  const isNumber = (kind: FieldType): boolean => kind === 'int32' || kind === 'number';
  return isNumber(a.kind) && isNumber(b.kind) ? 'number' : 'any';
}

/**
 * A nullable boolean may have been only null so far; then joining with another type forgets nothing, as
 * the values of the batch in hand are appended anew and one that is a boolean makes it `any`.
 */
function isNothing(node: LeafNode): boolean {
  return node.kind === 'boolean' && node.isNullable;
}

function joinObjects(a: ObjectNode, b: ObjectNode): SchemaNode {
  if (a.fields.length !== b.fields.length) return any;
  let isSame = true;
  const fields: [string, SchemaNode][] = [];
  for (const [i, [name, node]] of a.fields.entries()) {
    const [otherName, otherNode] = b.fields[i]!;
    if (name !== otherName) return any;
    const joined = joinNodes(node, otherNode);
    if (joined !== node) isSame = false;
    fields.push([name, joined]);
  }
  return isSame ? a : { kind: 'object', fields };
}

export function leavesOf(node: SchemaNode): readonly LeafNode[] {
  return node.kind === 'object' ? node.fields.flatMap(([, field]) => leavesOf(field)) : [node];
}

/** Columns pay only for what has a type of its own at the top, and not too many of them. */
export function isColumnar(node: SchemaNode): boolean {
  return node.kind !== 'any' && leavesOf(node).length <= columnsMax;
}

/** @returns undefined for what no writer makes: `__proto__`, too many columns, too deep. */
export function nodeOfDeclared(schema: RecordSchema, depth = 0): SchemaNode | undefined {
  if (typeof schema === 'string') {
    const isNullable = schema.endsWith('?');
    const kind = (isNullable ? schema.slice(0, -1) : schema) as FieldType;
    return kind === 'any' ? any : leaf(kind, isNullable);
  }
  if (depth > depthMax) return any;
  const fields: [string, SchemaNode][] = [];
  for (const [name, field] of Object.entries(schema.fields)) {
    const node = nodeOfDeclared(field, depth + 1);
    if (node === undefined || name === '__proto__') return undefined;
    fields.push([name, node]);
  }
  return { kind: 'object', fields };
}

/** Joins the shapes of the first records. */
export class SchemaLearner {
  #root: SchemaNode | undefined;
  #hasTimestamps = false;
  #hasMissingTimestamps = false;
  #isWhole = true;
  #least = Infinity;
  #most = -Infinity;
  #isRefused = false;
  count = 0;

  add(value: unknown, timestamp: number): void {
    this.count += 1;
    const node = nodeOf(value);
    if (node === undefined) this.#isRefused = true;
    else this.#root = this.#root === undefined ? node : joinNodes(this.#root, node);
    if (timestamp === NO_TIMESTAMP) {
      this.#hasMissingTimestamps = true;
      return;
    }
    this.#hasTimestamps = true;
    if (!Number.isSafeInteger(timestamp) || Object.is(timestamp, -0)) this.#isWhole = false;
    this.#least = Math.min(this.#least, timestamp);
    this.#most = Math.max(this.#most, timestamp);
  }

  /** @returns undefined when records of these shapes are better off without columns. */
  result(isWideText: boolean): BatchSchema | undefined {
    const root = this.#root;
    if (root === undefined || this.#isRefused || !isColumnar(root)) return undefined;
    return { root, timestamps: this.#timestamps(), isWideText };
  }

  #timestamps(): TimestampKind {
    if (!this.#hasTimestamps) return 'none';
    const isNear = this.#most - this.#least < 2 ** 31;
    return !this.#hasMissingTimestamps && this.#isWhole && isNear ? 'offset' : 'exact';
  }
}
