/**
 * The writers of one edge and the schema they share. Changes are bounded: widening ends by itself, a record of
 * another shape costs a fault, quiet batches forgive them, and an edge with too many stays with general batches.
 */
import type { BatchReader, BatchWriter, BatchWriterOptions } from './batch-codec.js';
import { layOut, type BatchLayout } from './columnar-layout.js';
import { generateReader } from './columnar-reader-code.js';
import { generateWriter } from './columnar-writer-code.js';
import type { ColumnarWriter, ColumnarWriterClass, MisfitHandler } from './columnar-writer.js';
import { GeneralBatchWriter } from './general-batch-codec.js';
import {
  isColumnar,
  joinRoots,
  nodeOf,
  nodeOfDeclared,
  SchemaLearner,
  withoutCategories,
  type BatchSchema,
  type RecordSchema,
} from './record-schema.js';
import { formatSchema } from './schema-text.js';
import { encodeValue } from './value-codec.js';

/** Records a schema is learned from. */
const learnedRecords = 64;
const faultsMax = 16;
/** Classes that are generated for one edge. */
const classesMax = 64;
/** Batches without a misfit that forgive a fault. */
const batchesToForgive = 64;
/** General batches before records that had no schema are looked at again; doubled by each fault. */
const pauseBatches = 8;
/** A header is at most this part of a buffer, and of 8 KB. */
const headerShare = 1 / 4;
const headerBytesMax = 8192;
/** 16 bits tell places in the text of a buffer up to this. */
const narrowTextMax = 65_535;

interface Known {
  readonly schema: BatchSchema;
  readonly layout: BatchLayout;
  readonly writerClass: ColumnarWriterClass;
}

export class ColumnarEdge implements MisfitHandler {
  readonly writers: BatchWriter[];
  readonly #options: BatchWriterOptions;
  /** By text, so that a schema that comes back has the class V8 knows. */
  readonly #made = new Map<string, Known>();
  #current: Known | undefined;
  /** The schema before records did not fit: what it had widened stays wide. */
  #last: BatchSchema | undefined;
  #learner: SchemaLearner | undefined;
  #faults = 0;
  #quietBatches = 0;
  /** General batches until a learner tries again. */
  #pause = 0;

  constructor(channels: number, options: BatchWriterOptions, declared: RecordSchema | undefined) {
    this.#options = options;
    const root = declared === undefined ? undefined : nodeOfDeclared(declared);
    if (root === undefined || !isColumnar(root)) this.#learner = new SchemaLearner();
    else this.#use({ root, timestamps: 'none', isWideText: this.#needsWideText });
    this.writers = Array.from({ length: channels }, (_, index) => this.#newWriter(index));
  }

  /** @throws RECORD_UNSUPPORTED */
  misfit(writer: ColumnarWriter, value: unknown, timestamp: number): boolean {
    encodeValue(value);
    const wider = this.#widen(writer, value, timestamp);
    if (wider === undefined || !this.#use(wider)) {
      this.#fault();
      this.#current = undefined;
      this.#learner = this.#isGeneralForGood ? undefined : new SchemaLearner();
      return this.#move(
        writer,
        new GeneralPhaseWriter(this, writer.index, this.#options),
        value,
        timestamp,
      );
    }
    return this.#move(writer, this.#newWriter(writer.index), value, timestamp);
  }

  sealed(writer: ColumnarWriter): void {
    if (writer.constructor !== this.#current?.writerClass) {
      this.writers[writer.index] = this.#newWriter(writer.index);
      return;
    }
    this.#quietBatches += 1;
    if (this.#quietBatches < batchesToForgive) return;
    this.#quietBatches = 0;
    if (this.#faults > 0) this.#faults -= 1;
  }

  /** A record went into a general batch. */
  observe(value: unknown, timestamp: number): void {
    const learner = this.#learner;
    if (learner === undefined) return;
    learner.add(value, timestamp);
    if (learner.count < learnedRecords) return;
    this.#learner = undefined;
    const schema = learner.result(this.#needsWideText);
    if (schema !== undefined && this.#use(this.#last ? resume(this.#last, schema) : schema)) return;
    this.#pause = pauseBatches << this.#faults;
    this.#fault();
  }

  sealedGeneral(index: number): void {
    if (this.#pause > 0) {
      this.#pause -= 1;
      if (this.#pause === 0 && !this.#isGeneralForGood) this.#learner = new SchemaLearner();
    }
    if (this.#current !== undefined || this.#isGeneralForGood)
      this.writers[index] = this.#newWriter(index);
  }

  get #isGeneralForGood(): boolean {
    return this.#faults > faultsMax;
  }

  get #needsWideText(): boolean {
    return this.#options.bufferBytes > narrowTextMax;
  }

  #fault(): void {
    this.#faults += 1;
    this.#quietBatches = 0;
  }

  #newWriter(index: number): BatchWriter {
    const current = this.#current;
    if (current !== undefined) {
      return new current.writerClass({
        index,
        bufferBytes: this.#options.bufferBytes,
        owner: this,
      });
    }
    return this.#isGeneralForGood
      ? new GeneralBatchWriter(this.#options)
      : new GeneralPhaseWriter(this, index, this.#options);
  }

  /** The schema that also takes the record; undefined when there is none that pays. */
  #widen(writer: ColumnarWriter, value: unknown, timestamp: number): BatchSchema | undefined {
    const current = this.#current?.schema;
    const node = nodeOf(value);
    if (current === undefined || node === undefined || this.#isGeneralForGood) return undefined;
    const root = joinRoots(current.root, node);
    if (!isColumnar(root)) return undefined;
    const timestamps = widenTimestamps(writer, current, timestamp);
    const isCurrent = writer.layout === this.#current?.layout;
    const isSame = root === current.root && timestamps === current.timestamps;
    if (!isSame || !isCurrent) return { root, timestamps, isWideText: current.isWideText };
    if (writer.crowded.size > 0) {
      return { ...current, root: withoutCategories(root, writer.crowded) };
    }
    // It is of the schema but does not fit: its text is long, or nobody sealed the batch when told to.
    return current.isWideText ? undefined : { root, timestamps, isWideText: true };
  }

  /** Makes it the schema of the edge; false when its header is too long. */
  #use(schema: BatchSchema): boolean {
    const text = formatSchema(schema);
    let known = this.#made.get(text);
    if (known === undefined) {
      if (this.#made.size >= classesMax) return false;
      const layout = layOut(schema);
      const headerMax = Math.min(headerBytesMax, this.#options.bufferBytes * headerShare);
      if (layout.header.byteLength > headerMax) return false;
      const writerClass = generateWriter(layout, this.#options.bufferBytes);
      known = { schema, layout, writerClass };
      this.#made.set(text, known);
    }
    this.#current = known;
    this.#last = schema;
    this.#learner = undefined;
    for (const [index, writer] of (this.writers ?? []).entries()) {
      if (writer.count === 0 && writer.constructor !== known.writerClass) {
        this.writers[index] = this.#newWriter(index);
      }
    }
    return true;
  }

  /** `to` takes the place of `from`, with its records and one more. */
  #move(from: ColumnarWriter, to: BatchWriter, value: unknown, timestamp: number): boolean {
    const { index } = from;
    const reader = from.count > 0 ? readerOf(from) : undefined;
    this.writers[index] = to;
    for (let i = 0; i < (reader?.count ?? 0); i += 1) {
      // Appending may widen again, which puts yet another writer in its place.
      this.writers[index].append(reader!.value(i), reader!.timestamp(i));
    }
    return this.writers[index].append(value, timestamp);
  }
}

function readerOf(writer: ColumnarWriter): BatchReader {
  const readerClass = generateReader(writer.layout);
  return new readerClass().load(writer.seal());
}

/** What was learned, joined with what was known if that was of the same shape. */
function resume(last: BatchSchema, learned: BatchSchema): BatchSchema {
  const root = joinRoots(last.root, learned.root);
  const timestamps = last.timestamps === 'exact' ? 'exact' : learned.timestamps;
  const isWideText = last.isWideText || learned.isWideText;
  return { root: isColumnar(root) ? root : learned.root, timestamps, isWideText };
}

function widenTimestamps(
  writer: ColumnarWriter,
  { timestamps }: BatchSchema,
  timestamp: number,
): BatchSchema['timestamps'] {
  const isFirst = writer.count === 0;
  if (timestamps === 'none') {
    if (timestamp === -Infinity) return 'none';
    return isFirst && Number.isSafeInteger(timestamp) ? 'offset' : 'exact';
  }
  if (timestamps === 'exact') return 'exact';
  const offset = isFirst ? 0 : timestamp - writer.firstTimestamp;
  const isOffset = Number.isSafeInteger(timestamp) && !Object.is(timestamp, -0);
  return isOffset && Math.abs(offset) < 2 ** 31 ? 'offset' : 'exact';
}

/** General batches while the edge has no schema; shows it what passes. */
class GeneralPhaseWriter implements BatchWriter {
  readonly #edge: ColumnarEdge;
  readonly #index: number;
  readonly #inner: GeneralBatchWriter;
  count = 0;

  constructor(edge: ColumnarEdge, index: number, options: BatchWriterOptions) {
    this.#edge = edge;
    this.#index = index;
    this.#inner = new GeneralBatchWriter(options);
  }

  append(value: unknown, timestamp: number): boolean {
    const isFull = this.#inner.append(value, timestamp);
    this.count += 1;
    this.#edge.observe(value, timestamp);
    return isFull;
  }

  seal(): Uint8Array {
    const sealed = this.#inner.seal();
    this.count = 0;
    this.#edge.sealedGeneral(this.#index);
    return sealed;
  }
}
