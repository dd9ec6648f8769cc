import fc from 'fast-check';
import t from 'tap';
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { pack } from 'msgpackr';
import { hasCode, MillraceError } from '../../../lib/base/errors.js';
import type { JobId, OperatorId, VertexId } from '../../../lib/base/ids.js';
import { decodeMetadata, encodeMetadata } from '../../../checkpoint/format/metadata-v1.js';
import type { CheckpointMetadata } from '../../../checkpoint/types.js';

const metadata: CheckpointMetadata = {
  version: 1,
  checkpointId: 42,
  jobId: '0123456789abcdef0123456789abcdef' as JobId,
  jobName: 'access log',
  timestamp: 1_700_000_000_000,
  epoch: 'e1.4711',
  kind: 'checkpoint',
  vertices: [
    {
      vertexId: 'aa' as VertexId,
      name: 'Source -> Map',
      parallelism: 2,
      maxParallelism: 128,
      operators: [
        { id: 'op1' as OperatorId, uid: 'src', name: 'Source', maxParallelism: 128 },
        { id: 'op2' as OperatorId, name: 'Map', maxParallelism: 128 },
      ],
      subtasks: [
        {
          finished: false,
          operators: {
            ['op1' as OperatorId]: {
              operator: { kind: 'inline', bytes: Uint8Array.of(1, 2, 3) },
              watermark: -Infinity,
            },
            ['op2' as OperatorId]: {
              keyed: {
                range: { start: 0, end: 63 },
                sections: [{ keyGroup: 3, offset: 0, length: 17 }],
                data: { kind: 'file', path: 'x-0.state', sizeBytes: 17, crc32: 4_000_000_000 },
              },
              watermark: 1_699_999_999_999,
            },
          },
        },
        { finished: true, operators: {} },
      ],
    },
  ],
  coordinators: { ['op1' as OperatorId]: { kind: 'inline', bytes: new Uint8Array() } },
};

/** A correctly sealed file around any body. */
function seal(body: Buffer, version = 1): Buffer {
  const head = Buffer.alloc(24);
  head.write('MILLCKPT', 'latin1');
  head.writeUInt32LE(version, 8);
  head.writeBigUInt64LE(BigInt(body.length), 16);
  const content = Buffer.concat([head, body]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(content));
  const sealed = Buffer.concat([content, crc]);
  return Buffer.concat([sealed, createHash('sha256').update(sealed).digest()]);
}

t.test('metadata survives its file, and inline state does not hold on to it', (t) => {
  const file = encodeMetadata(metadata);
  const found = decodeMetadata(file, '/c/_metadata');
  const source = found.vertices[0]?.subtasks[0]?.operators['op1' as OperatorId];
  const bytes = source?.operator?.kind === 'inline' ? source.operator.bytes : undefined;
  t.strictSame([...(bytes ?? [])], [1, 2, 3]);
  t.ok((bytes?.buffer.byteLength ?? Infinity) < file.byteLength, 'it has a buffer of its own');
  t.equal(source?.watermark, -Infinity);
  t.equal(found.checkpointId, 42);
  t.strictSame(found.vertices[0]?.operators, metadata.vertices[0]?.operators);
  t.strictSame(
    found.vertices[0]?.subtasks[0]?.operators['op2' as OperatorId],
    metadata.vertices[0]?.subtasks[0]?.operators['op2' as OperatorId],
  );
  t.strictSame(found.vertices[0]?.subtasks[1], { finished: true, operators: {} });
  t.end();
});

t.test('a change of any byte is noticed, and the error names the file and an offset', (t) => {
  const file = encodeMetadata(metadata);
  fc.assert(
    fc.property(fc.nat(file.byteLength - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const damaged = Uint8Array.from(file);
      damaged[at] = (damaged[at] ?? 0) ^ flip;
      try {
        decodeMetadata(damaged, '/c/chk-42/_metadata');
      } catch (error) {
        return (
          hasCode(error, 'CHECKPOINT_CORRUPT') &&
          error.message.includes('/c/chk-42/_metadata') &&
          typeof error.details['offset'] === 'number'
        );
      }
      return false;
    }),
    { numRuns: 2_000 },
  );
  t.end();
});

t.test('a file that is cut off anywhere, or goes on after its end, is refused', (t) => {
  const file = encodeMetadata(metadata);
  const isRefused = (length: number): boolean => {
    try {
      decodeMetadata(file.subarray(0, length), '/c');
      return false;
    } catch (error) {
      return hasCode(error, 'CHECKPOINT_CORRUPT');
    }
  };
  t.ok(Array.from(file, (_, length) => isRefused(length)).every(Boolean));
  const longer = Buffer.concat([file, Buffer.of(0)]);
  t.throws(() => decodeMetadata(longer, '/c'), { message: /goes on after its end/ });
  t.end();
});

t.test('a later version is named, not guessed at', (t) => {
  const later = seal(pack({}), 2);
  t.throws(() => decodeMetadata(later, '/c'), {
    code: 'CHECKPOINT_CORRUPT',
    message: /version is 2; this Millrace reads version 1/,
  });
  t.end();
});

t.test('unknown fields are tolerated; missing and ill-typed ones are named', (t) => {
  const plain = { ...metadata, vertices: [], coordinators: {}, added: { later: true } };
  t.equal(decodeMetadata(seal(pack(plain)), '/c').checkpointId, 42);
  t.throws(() => decodeMetadata(seal(pack({ ...plain, vertices: [{}] })), '/c'), {
    message: /vertices\[0\]\.vertexId: is no text/,
  });
  t.throws(() => decodeMetadata(seal(pack({ ...plain, kind: 'other' })), '/c'), {
    message: /metadata\.kind: is unknown/,
  });
  t.throws(() => decodeMetadata(seal(pack([1])), '/c'), MillraceError);
  t.throws(() => decodeMetadata(seal(Buffer.of(0xc1)), '/c'), { code: 'CHECKPOINT_CORRUPT' });
  t.end();
});
