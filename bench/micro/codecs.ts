/** Ways to turn a batch of records into bytes and back. */
import { deserialize, serialize } from 'node:v8';
import { Packr } from 'msgpackr';

export interface NaiveCodec {
  encode(records: readonly unknown[]): Uint8Array;
  decode(bytes: Uint8Array): unknown[];
}

/** `sample` is a record of the kind to come: both sides of msgpackr learn its structure from it. */
export function naiveCodec(name: string, sample: object): NaiveCodec {
  switch (name) {
    case 'json':
      return {
        encode: (records) => Buffer.from(JSON.stringify(records)),
        decode: (bytes) =>
          JSON.parse(
            Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString(),
          ) as unknown[],
      };
    case 'v8':
      return {
        encode: (records) => serialize(records),
        decode: (bytes) => deserialize(bytes) as unknown[],
      };
    case 'msgpackr':
    case 'msgpackr-bundled': {
      const packr = new Packr({ structures: [], bundleStrings: name === 'msgpackr-bundled' });
      packr.unpack(packr.pack([sample]));
      return {
        encode: (records) => packr.pack(records),
        decode: (bytes) => packr.unpack(bytes) as unknown[],
      };
    }
    default:
      throw new RangeError(`no codec ${name}`);
  }
}
