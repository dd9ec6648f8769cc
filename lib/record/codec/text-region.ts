/** The strings of a batch as one run of bytes: written by one call, read in slices. */
import { textEncoding } from './columnar-layout.js';

/** So that a text that is no ASCII cannot be cut off and still seem as long as it has characters. */
const slackBytes = 8;

/** The most bytes `tryWriteText` needs to find out whether the text is ASCII. */
export const textBytesToTry = (text: string): number => text.length + slackBytes;

export interface WrittenText {
  readonly encoding: number;
  readonly bytes: number;
}

/** @param target has room for `textBytesToTry`. Undefined: it is no ASCII and needs `writeWideText`. */
export function tryWriteAscii(target: Buffer, offset: number, text: string): boolean {
  return target.write(text, offset, text.length + slackBytes, 'utf8') === text.length;
}

/** Unicode without lone surrogates is UTF-8, what UTF-8 would change UTF-16. */
export function sizeOfText(text: string): WrittenText {
  return isWellFormed.call(text)
    ? { encoding: textEncoding.utf8, bytes: Buffer.byteLength(text, 'utf8') }
    : { encoding: textEncoding.utf16, bytes: 2 * text.length };
}

export function writeText(target: Buffer, offset: number, text: string, size: WrittenText): void {
  target.write(text, offset, size.encoding === textEncoding.utf8 ? 'utf8' : 'utf16le');
}

const isWellFormed = (String.prototype as unknown as { isWellFormed: (this: string) => boolean })
  .isWellFormed;
