import { crc32 } from 'node:zlib';
import { MillraceError } from '../../lib/base/errors.js';
import type { StateHandle } from '../../lib/state/state-handle.js';

export type FileHandleData = Extract<StateHandle, { kind: 'file' }>;

export function describeStateFile(path: string, bytes: Uint8Array): FileHandleData {
  return { kind: 'file', path, sizeBytes: bytes.byteLength, crc32: crc32(bytes) };
}

/** @throws CHECKPOINT_CORRUPT when the bytes are not those the handle was made for. */
export function verifyStateFile(handle: FileHandleData, path: string, bytes: Uint8Array): void {
  const problem =
    bytes.byteLength !== handle.sizeBytes
      ? `it has ${String(bytes.byteLength)} bytes instead of ${String(handle.sizeBytes)}`
      : crc32(bytes) !== handle.crc32
        ? 'its CRC-32 does not fit its content'
        : undefined;
  if (problem === undefined) return;
  throw new MillraceError('CHECKPOINT_CORRUPT', `state file ${path} is damaged: ${problem}`, {
    details: { path },
  });
}

/** Absolute paths and URIs stay as they are. */
export function isAbsolute(path: string): boolean {
  return path.startsWith('/') || /^[a-z]+:\/\//i.test(path);
}
