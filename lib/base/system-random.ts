import { randomBytes } from 'node:crypto';
import type { Random } from './random.js';

/** Cryptographic randomness: the only user of node:crypto's generator. */
export class SystemRandom implements Random {
  next(): number {
    return randomBytes(6).readUIntBE(0, 6) / 2 ** 48;
  }

  hex(length: number): string {
    return randomBytes(Math.ceil(length / 2))
      .toString('hex')
      .slice(0, length);
  }
}
