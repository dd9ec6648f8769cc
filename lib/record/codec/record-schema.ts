/**
 * The shape of the records of an edge, as columns: declared or learned from the first records, then only ever
 * widened (int32 to number, a value to one that may be null, anything to `any`), so that changes end.
 */
import { NO_TIMESTAMP } from '../stream-element.js';

/**
 * Type of a field. `category`: a string with few different values, each of which is sent once in a batch and is one
 * string for all its records. `any`: whatever a record may hold, each value encoded by itself, which is slower.
 */
export type FieldType =
  'int32' | 'number' | 'boolean' | 'string' | 'category' | 'bigint' | 'date' | 'any';

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

/** Records of several shapes, told apart by their keys; only at the top. */
export interface UnionNode {
  readonly kind: 'union';
  readonly members: readonly ObjectNode[];
}

export type SchemaNode = LeafNode | ObjectNode;
export type RootNode = SchemaNode | UnionNode;

/** `none`: no record has one; `offset`: int32 ms from the first of the batch; `exact`: any number. */
export type TimestampKind = 'none' | 'offset' | 'exact';

export interface BatchSchema {
  readonly root: RootNode;
  readonly timestamps: TimestampKind;
  /** Positions in the text of a batch take 32 bits instead of 16. */
  readonly isWideText: boolean;
}

/** Wider records make code that V8 optimizes badly. */
const columnsMax = 100;
const depthMax = 4;
/** Every record has room for the columns of all shapes. */
const shapesMax = 8;
/** Different strings among the first records up to which a field is a category. */
const learnedCategoriesMax = 16;
/** In a batch. */
export const categoriesMax = 64;
export const categoryLengthMax = 64;

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

/** As `joinNodes`, but objects with other keys make a union. */
export function joinRoots(a: RootNode, b: RootNode): RootNode {
  if (a.kind !== 'union' && a.kind !== 'object') return b.kind === 'union' ? any : joinNodes(a, b);
  if (b.kind !== 'union' && b.kind !== 'object') return any;
  const before = membersOf(a);
  const members = [...before];
  for (const other of membersOf(b)) {
    const place = members.findIndex((member) => hasSameKeys(member, other));
    if (place < 0) members.push(other);
    else members[place] = joinNodes(members[place]!, other) as ObjectNode;
  }
  if (members.length > shapesMax) return any;
  if (members.length === before.length && members.every((m, i) => m === before[i])) return a;
  return members.length === 1 ? members[0]! : { kind: 'union', members };
}

const membersOf = (node: ObjectNode | UnionNode): readonly ObjectNode[] =>
  node.kind === 'union' ? node.members : [node];

function hasSameKeys(a: ObjectNode, b: ObjectNode): boolean {
  return (
    a.fields.length === b.fields.length && a.fields.every(([name], i) => name === b.fields[i]![0])
  );
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
  // A value is never more than a string by itself.
  if (a.kind === 'category' && b.kind === 'string') return 'category';
  if (a.kind === 'string' && b.kind === 'category') return 'string';
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

export function leavesOf(node: RootNode): readonly LeafNode[] {
  if (node.kind === 'union') return node.members.flatMap(leavesOf);
  return node.kind === 'object' ? node.fields.flatMap(([, field]) => leavesOf(field)) : [node];
}

/** Columns pay only for what has a type of its own at the top, and not too many of them. */
export function isColumnar(node: RootNode): boolean {
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

/** The node with those of its strings as categories that are few among the values. */
function findCategories<T extends RootNode>(node: T, values: readonly unknown[]): T;
function findCategories(node: RootNode, values: readonly unknown[]): RootNode {
  if (node.kind === 'union') {
    const members = node.members.map((member) => {
      const keys = String(member.fields.map(([name]) => name));
      return findCategories(
        member,
        values.filter((value) => String(Object.keys(value as object)) === keys),
      );
    });
    return { kind: 'union', members };
  }
  if (node.kind === 'object') {
    const fields = node.fields.map(([name, field]): [string, SchemaNode] => [
      name,
      findCategories(
        field,
        // A record may have been changed since it was added.
        values.map(
          (value) => (value as Readonly<Record<string, unknown>> | null | undefined)?.[name],
        ),
      ),
    ]);
    return { kind: 'object', fields };
  }
  if (node.kind !== 'string') return node;
  const strings = new Set(values.filter((value) => typeof value === 'string'));
  const isFew = strings.size <= learnedCategoriesMax && strings.size * 4 <= values.length;
  const isShort = [...strings].every((text) => text.length <= categoryLengthMax);
  return isFew && isShort ? { kind: 'category', isNullable: node.isNullable } : node;
}

/** The node with the given leaves, by their places in `leavesOf`, as plain strings. */
export function withoutCategories(node: RootNode, places: ReadonlySet<number>): RootNode {
  let place = 0;
  const walk = (inner: SchemaNode): SchemaNode => {
    if (inner.kind === 'object') return walkObject(inner);
    return places.has(place++) ? { kind: 'string', isNullable: inner.isNullable } : inner;
  };
  const walkObject = (object: ObjectNode): ObjectNode => ({
    kind: 'object',
    fields: object.fields.map(([name, field]) => [name, walk(field)]),
  });
  return node.kind === 'union'
    ? { kind: 'union', members: node.members.map(walkObject) }
    : walk(node);
}

/** Joins the shapes of the first records. */
export class SchemaLearner {
  #root: RootNode | undefined;
  #hasTimestamps = false;
  #hasMissingTimestamps = false;
  #isWhole = true;
  #least = Infinity;
  #most = -Infinity;
  #isRefused = false;
  readonly #values: unknown[] = [];
  count = 0;

  add(value: unknown, timestamp: number): void {
    this.count += 1;
    this.#values.push(value);
    const node = nodeOf(value);
    if (node === undefined) this.#isRefused = true;
    else this.#root = this.#root === undefined ? node : joinRoots(this.#root, node);
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
    return { root: findCategories(root, this.#values), timestamps: this.#timestamps(), isWideText };
  }

  #timestamps(): TimestampKind {
    if (!this.#hasTimestamps) return 'none';
    const isNear = this.#most - this.#least < 2 ** 31;
    return !this.#hasMissingTimestamps && this.#isWhole && isNear ? 'offset' : 'exact';
  }
}
