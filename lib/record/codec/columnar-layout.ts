/**
 * Where the parts of a columnar batch are. All numbers little-endian; columns are views in the machine's own
 * order, which Node's platforms we run on share.
 *
 * Header: u8 format 2, u8 version, u8 text encoding, u8 0, u32 records, f64 first timestamp, u32 text length (UTF-16
 * units), u32 text bytes, u32 bytes of `any` values, u16 bytes of the schema, u16 bytes of the sizes of categories, u32 hash of the schema, the
 * schema (schema-text.ts), zeros up to a multiple of 8. Then the columns, wider elements first, so that all
 * are aligned when the batch is; then the sizes of categories, the bytes of `any` values, the text.
 *
 * Columns: the timestamps; of each field its values (int32, f64, i64, ms of a date, u8 of a boolean) and, when
 * nullable, a u8: 0 a value, 1 null, 2 undefined (a boolean needs only one u8: false, true, null, undefined).
 * Strings of a record are one after another in the text, records too: a column of all fields but the last says
 * where the string ends, one with an element more where each record begins. The same for `any` values.
 *
 * A category is a u8, its place among the categories of its field in this batch. Sizes: for each such field a u8, how
 * many, and a u8 for each, its length in UTF-16 units. Their strings end the text, behind those of the records.
 *
 * Records of several shapes have the columns of all of them, and a u8 that says which shape each is of; the other columns
 * hold anything there. "Fields but the last" means those of a shape.
 */
import type { BatchSchema, LeafNode, RootNode } from './record-schema.js';
import { leavesOf } from './record-schema.js';
import { formatSchema } from './schema-text.js';

export const columnarFormat = 2;
export const columnarVersion = 1;
export const fixedHeaderBytes = 36;
/** Bounds what a damaged count can cost where records take no bytes of their own. */
export const recordsMax = 1 << 16;

export const textEncoding = { ascii: 0, utf8: 1, utf16: 2 } as const;

/** Views of one buffer, by the type of elements. */
export type ViewName = 'f64' | 'i64' | 'i32' | 'u32' | 'u16' | 'u8';

const elementBytes: Readonly<Record<ViewName, number>> = {
  f64: 8,
  i64: 8,
  i32: 4,
  u32: 4,
  u16: 2,
  u8: 1,
};

export interface Column {
  readonly view: ViewName;
  readonly bytes: number;
  /** Elements beside one a record. */
  readonly extra: 0 | 1;
  /** In a batch of n records it begins at `headerBytes + n * beforePerRecord + beforeFixed`. */
  readonly beforePerRecord: number;
  readonly beforeFixed: number;
  readonly index: number;
}

export interface LeafColumns {
  readonly leaf: LeafNode;
  /** Of int32, number, bigint, date; of a boolean or category its u8. */
  readonly value?: Column;
  /** Of a nullable one that is no boolean. */
  readonly presence?: Column;
  /** Of a category: which field of that kind it is. */
  readonly category?: number;
  /** Of string and any: where it ends; none for the last of the record. */
  readonly end?: Column;
}

export interface BatchLayout {
  readonly schema: BatchSchema;
  /** The header with zeros for what differs between batches. */
  readonly header: Uint8Array;
  readonly columns: readonly Column[];
  /** How many fields are categories. */
  readonly categories: number;
  /** In the order of the fields. */
  readonly leaves: readonly LeafColumns[];
  readonly timestamps: Column | undefined;
  /** Which member of a union each record is. */
  readonly shape: Column | undefined;
  /** Where the text of each record begins. */
  readonly textStarts: Column | undefined;
  readonly anyStarts: Column | undefined;
  readonly bytesPerRecord: number;
  readonly bytesFixed: number;
}

interface Wanted {
  readonly view: ViewName;
  readonly extra: 0 | 1;
  set: (column: Column) => void;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export function layOut(schema: BatchSchema): BatchLayout {
  const header = makeHeader(schema);
  const starts: Mutable<Pick<BatchLayout, 'timestamps' | 'textStarts' | 'anyStarts' | 'shape'>> = {
    shape: undefined,
    timestamps: undefined,
    textStarts: undefined,
    anyStarts: undefined,
  };
  const leaves: Mutable<LeafColumns>[] = leavesOf(schema.root).map((leaf) => ({ leaf }));
  const wanted: Wanted[] = leaves.flatMap((leaf) => wantedOf(leaf));
  const want = (view: ViewName, extra: 0 | 1, set: (column: Column) => void): void => {
    wanted.push({ view, extra, set });
  };
  if (schema.timestamps !== 'none') {
    const view = schema.timestamps === 'offset' ? 'i32' : 'f64';
    want(view, 0, (column) => (starts.timestamps = column));
  }
  const categories = leaves.filter(({ leaf }) => leaf.kind === 'category');
  for (const [index, category] of categories.entries()) category.category = index;
  const textView = schema.isWideText ? 'u32' : 'u16';
  for (const group of shapesOf(schema.root, leaves)) {
    const ends = (kind: LeafNode['kind']): Mutable<LeafColumns>[] =>
      group.filter(({ leaf }) => leaf.kind === kind).slice(0, -1);
    for (const text of ends('string')) want(textView, 0, (column) => (text.end = column));
    for (const value of ends('any')) want('u32', 0, (column) => (value.end = column));
  }
  const has = (kind: LeafNode['kind']): boolean => leaves.some(({ leaf }) => leaf.kind === kind);
  if (has('string')) want(textView, 1, (column) => (starts.textStarts = column));
  if (has('any')) want('u32', 1, (column) => (starts.anyStarts = column));
  if (schema.root.kind === 'union') want('u8', 0, (column) => (starts.shape = column));
  return {
    schema,
    header,
    leaves,
    categories: categories.length,
    ...place(wanted),
    ...starts,
  };
}

/** The leaves of each shape of records. */
function shapesOf<T>(root: RootNode, leaves: readonly T[]): readonly (readonly T[])[] {
  if (root.kind !== 'union') return [leaves];
  let start = 0;
  return root.members.map((member) => leaves.slice(start, (start += leavesOf(member).length)));
}

function wantedOf(columns: Mutable<LeafColumns>): Wanted[] {
  const { kind, isNullable } = columns.leaf;
  const wanted: Wanted[] = [];
  const view = valueView(kind);
  if (view !== undefined) {
    wanted.push({ view, extra: 0, set: (column) => (columns.value = column) });
  }
  if (isNullable && kind !== 'boolean') {
    wanted.push({ view: 'u8', extra: 0, set: (column) => (columns.presence = column) });
  }
  return wanted;
}

function valueView(kind: LeafNode['kind']): ViewName | undefined {
  switch (kind) {
    case 'int32':
      return 'i32';
    case 'number':
    case 'date':
      return 'f64';
    case 'bigint':
      return 'i64';
    case 'boolean':
    case 'category':
      return 'u8';
    case 'string':
    case 'any':
      return undefined;
  }
}

function place(wanted: Wanted[]): Pick<BatchLayout, 'columns' | 'bytesPerRecord' | 'bytesFixed'> {
  wanted.sort((a, b) => elementBytes[b.view] - elementBytes[a.view]);
  let bytesPerRecord = 0;
  let bytesFixed = 0;
  const columns = wanted.map(({ view, extra, set }, index) => {
    const bytes = elementBytes[view];
    const beforePerRecord = bytesPerRecord;
    const column = { view, bytes, extra, beforePerRecord, beforeFixed: bytesFixed, index };
    bytesPerRecord += bytes;
    bytesFixed += extra * bytes;
    set(column);
    return column;
  });
  return { columns, bytesPerRecord, bytesFixed };
}

function makeHeader(schema: BatchSchema): Uint8Array {
  const text = Buffer.from(formatSchema(schema), 'utf8');
  const header = new Uint8Array(Math.ceil((fixedHeaderBytes + text.byteLength) / 8) * 8);
  const view = new DataView(header.buffer);
  header[0] = columnarFormat;
  header[1] = columnarVersion;
  view.setUint16(28, text.byteLength, true);
  view.setUint32(32, hashBytes(text), true);
  header.set(text, fixedHeaderBytes);
  return header;
}

/** FNV-1a: tells a damaged schema from one that nobody has seen yet. */
export function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
