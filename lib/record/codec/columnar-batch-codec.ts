/**
 * Batches in columns of a schema, learned from the first records of an edge and checked on every record
 * (columnar-layout.ts has the format). A batch with a record of another shape becomes a general batch
 * (general-batch-codec.ts), and the schema is learned anew; a record that a wider schema takes widens it.
 */
import type {
  BatchCodec,
  BatchDecoder,
  BatchReader,
  BatchWriter,
  BatchWriterOptions,
} from './batch-codec.js';
import { ColumnarEdge } from './columnar-edge.js';
import {
  columnarFormat,
  columnarVersion,
  fixedHeaderBytes,
  hashBytes,
  layOut,
} from './columnar-layout.js';
import { generateReader } from './columnar-reader-code.js';
import { damagedBatch, type ColumnarReader, type ColumnarReaderClass } from './columnar-reader.js';
import { GeneralBatchReader } from './general-batch-codec.js';
import type { RecordSchema } from './record-schema.js';
import { parseSchema } from './schema-text.js';
import { MillraceError } from '../../base/errors.js';

export interface ColumnarCodecOptions {
  /** Default: learned from the first records of each edge. */
  readonly schema?: RecordSchema;
}

export function createColumnarCodec({ schema }: ColumnarCodecOptions = {}): BatchCodec {
  return {
    createWriters: (channels: number, options: BatchWriterOptions): BatchWriter[] =>
      new ColumnarEdge(channels, options, schema).writers,
    createDecoders: (channels) => {
      const classes = new ReaderClasses();
      return Array.from({ length: channels }, () => new ColumnarDecoder(classes));
    },
  };
}

export const columnarBatchCodec: BatchCodec = createColumnarCodec();

/** Schemas come and go; the least recently made are forgotten. */
const classesMax = 64;

/** The classes made for the schemas of one input. */
class ReaderClasses {
  readonly #bySchema = new Map<string, ColumnarReaderClass>();

  of(schemaBytes: Uint8Array, hash: number): ColumnarReaderClass {
    if (hashBytes(schemaBytes) !== hash) throw damagedBatch('its schema has another hash');
    const text = Buffer.from(schemaBytes).toString('utf8');
    const known = this.#bySchema.get(text);
    if (known !== undefined) return known;
    const schema = parseSchema(text);
    if (schema === undefined) throw damagedBatch('its schema is not known');
    const made = generateReader(layOut(schema));
    if (this.#bySchema.size >= classesMax) {
      this.#bySchema.delete(this.#bySchema.keys().next().value!);
    }
    this.#bySchema.set(text, made);
    return made;
  }
}

/** Readers of schemas that a channel uses by turns. */
const readersMax = 4;

interface KnownSchema {
  /** The schema with its length and hash, as in the header. */
  readonly header: Buffer;
  readonly reader: ColumnarReader;
}

class ColumnarDecoder implements BatchDecoder {
  readonly #classes: ReaderClasses;
  readonly #general = new GeneralBatchReader();
  /** The last used first. */
  readonly #known: KnownSchema[] = [];

  constructor(classes: ReaderClasses) {
    this.#classes = classes;
  }

  open(bytes: Uint8Array): BatchReader {
    if (bytes[0] !== columnarFormat) return this.#general.open(bytes);
    if (bytes[1] !== columnarVersion) {
      throw new MillraceError(
        'RPC_PROTOCOL',
        `a batch of records is of version ${bytes[1]}, this Millrace knows ${columnarVersion}`,
      );
    }
    return this.#readerOf(bytes).load(bytes);
  }

  #readerOf(bytes: Uint8Array): ColumnarReader {
    if (bytes.byteLength < fixedHeaderBytes) throw damagedBatch('cut short');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const schemaEnd = fixedHeaderBytes + view.getUint16(28, true);
    if (Math.ceil(schemaEnd / 8) * 8 > bytes.byteLength) throw damagedBatch('cut short');
    const header = Buffer.from(bytes.buffer, bytes.byteOffset + 28, schemaEnd - 28);
    const known = this.#known;
    for (let k = 0; k < known.length; k += 1) {
      const candidate = known[k]!;
      if (!candidate.header.equals(header)) continue;
      if (k > 0) {
        known.splice(k, 1);
        known.unshift(candidate);
      }
      return candidate.reader;
    }
    const schema = bytes.subarray(fixedHeaderBytes, schemaEnd);
    const readerClass = this.#classes.of(schema, view.getUint32(32, true));
    const reader = new readerClass();
    known.unshift({ header: Buffer.from(header), reader });
    if (known.length > readersMax) known.pop();
    return reader;
  }
}
