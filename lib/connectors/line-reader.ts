/**
 * The lines of one byte range. A line belongs to the range in which its first byte is, so the range's
 * end is read over, and its beginning skipped up to the first line break at or after `start - 1`.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { MillraceError } from '../base/errors.js';
import { fileError } from './file-errors.js';
import type { FileSplit } from './file-split.js';

export interface LineReaderOptions {
  readonly maxLineBytes: number;
  /** Bytes read at a time. Default: 256 KiB. */
  readonly chunkBytes?: number;
  /** Ask again: a chunk arrived or the end was found. */
  readonly onData: () => void;
  readonly onError: (error: unknown) => void;
}

const lineFeed = 10;
const carriageReturn = 13;
/** While its thread is busy a chunk comes about every ms, when the thread's event loop has its turn. */
const defaultChunkBytes = 256 * 1024;

export class LineReader {
  readonly #split: FileSplit;
  readonly #options: LineReaderOptions;
  #file: Promise<FileHandle> | undefined;
  /** At most one chunk is cut and one is read ahead. */
  #chunk: Buffer = Buffer.alloc(0);
  #cut = 0;
  #ahead: Buffer | undefined;
  #isReading = false;
  #isEndOfFile = false;
  #readOffset: number;
  /** The beginning of a line that goes on in the next chunk. */
  #partial: Buffer[] = [];
  #partialBytes = 0;
  /** Offset of the line that is being looked for. */
  #lineStart: number;
  #isSkipping: boolean;
  /** A line that was found, and the offset after it. */
  #found: string | undefined;
  #foundNext = 0;
  #isAtEnd = false;
  #isClosed = false;
  #work: Promise<void> = Promise.resolve();

  constructor(split: FileSplit, options: LineReaderOptions) {
    this.#split = split;
    this.#options = options;
    this.#isSkipping = split.position === undefined && split.start > 0;
    this.#readOffset = split.position ?? (this.#isSkipping ? split.start - 1 : split.start);
    this.#lineStart = this.#readOffset;
    this.#readAhead();
  }

  /** Offset of the next line to take: where a restored reader goes on. Absent while it is not known yet. */
  get position(): number | undefined {
    return this.#isSkipping ? undefined : this.#lineStart;
  }

  /** No line is left; valid once `hasLine` has answered false. */
  get isAtEnd(): boolean {
    return this.#isAtEnd;
  }

  /** False: wait for `onData`, or look at `isAtEnd`. */
  hasLine(): boolean {
    while (this.#found === undefined && !this.#isAtEnd) {
      if (!this.#isSkipping && this.#lineStart >= this.#split.end) {
        this.#isAtEnd = true;
        break;
      }
      const lineBreak = this.#chunk.indexOf(lineFeed, this.#cut);
      if (lineBreak >= 0) this.#endLine(lineBreak);
      else if (!this.#nextChunk()) break;
    }
    return this.#found !== undefined;
  }

  takeLine(): string {
    const found = this.#found;
    if (found === undefined) throw new RangeError('no line: ask hasLine first');
    this.#found = undefined;
    this.#lineStart = this.#foundNext;
    return found;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#work;
    try {
      await (await this.#file)?.close();
    } catch {
      // It could not be opened, which was reported, or is closed already.
      return;
    }
  }

  /** Cuts at a line break of the current chunk. */
  #endLine(lineBreak: number): void {
    const bytes = this.#partialBytes + (lineBreak - this.#cut) + 1;
    if (this.#isSkipping) {
      this.#isSkipping = false;
      this.#lineStart += bytes;
      this.#dropPartial();
    } else {
      this.#checkLength(bytes - 1);
      this.#found = this.#textUpTo(lineBreak, true);
      this.#foundNext = this.#lineStart + bytes;
    }
    this.#cut = lineBreak + 1;
  }

  /** Keeps the rest of the chunk and takes the one read ahead; false when there is none (yet). */
  #nextChunk(): boolean {
    this.#keepPartial();
    if (this.#ahead === undefined) {
      if (!this.#isEndOfFile) this.#readAhead();
      else this.#endOfFile();
      return this.#found !== undefined;
    }
    this.#chunk = this.#ahead;
    this.#cut = 0;
    this.#ahead = undefined;
    this.#readAhead();
    return true;
  }

  /** The last line may have no line break. */
  #endOfFile(): void {
    if (this.#isSkipping || this.#partialBytes === 0) {
      this.#isAtEnd = true;
      return;
    }
    this.#foundNext = this.#lineStart + this.#partialBytes;
    this.#found = this.#textUpTo(this.#chunk.length, false);
  }

  #keepPartial(): void {
    const rest = this.#chunk.length - this.#cut;
    if (rest === 0) return;
    this.#partialBytes += rest;
    // What is skipped is counted, not kept.
    if (!this.#isSkipping) this.#partial.push(this.#chunk.subarray(this.#cut));
    this.#cut = this.#chunk.length;
    if (!this.#isSkipping) this.#checkLength(this.#partialBytes);
  }

  #checkLength(bytes: number): void {
    if (bytes <= this.#options.maxLineBytes) return;
    throw new MillraceError(
      'RECORD_UNSUPPORTED',
      `the line at byte ${this.#lineStart} of ${this.#split.path} is longer than ${this.#options.maxLineBytes} bytes`,
    );
  }

  #textUpTo(end: number, hasLineBreak: boolean): string {
    const stripReturn = (bytes: Buffer, to: number): number =>
      hasLineBreak && to > 0 && bytes[to - 1] === carriageReturn ? to - 1 : to;
    if (this.#partialBytes === 0) {
      // Not below the cut: the byte before it belongs to another line.
      const to = end > this.#cut ? stripReturn(this.#chunk, end) : end;
      return this.#chunk.toString('utf8', this.#cut, to);
    }
    const bytes = Buffer.concat([...this.#partial, this.#chunk.subarray(this.#cut, end)]);
    this.#dropPartial();
    return bytes.toString('utf8', 0, stripReturn(bytes, bytes.length));
  }

  #dropPartial(): void {
    this.#partial = [];
    this.#partialBytes = 0;
  }

  #readAhead(): void {
    if (this.#isReading || this.#isEndOfFile || this.#isClosed) return;
    this.#isReading = true;
    this.#work = this.#read();
  }

  async #read(): Promise<void> {
    const { path } = this.#split;
    try {
      this.#file ??= this.#open();
      const file = await this.#file;
      const buffer = Buffer.allocUnsafe(this.#options.chunkBytes ?? defaultChunkBytes);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#readOffset);
      this.#readOffset += bytesRead;
      if (bytesRead === 0) this.#isEndOfFile = true;
      else this.#ahead = buffer.subarray(0, bytesRead);
    } catch (error) {
      // Nothing more will come; whoever is told decides.
      this.#isClosed = true;
      this.#options.onError(
        error instanceof MillraceError ? error : fileError(error, path, 'read'),
      );
      return;
    } finally {
      this.#isReading = false;
    }
    if (!this.#isClosed) this.#options.onData();
  }

  async #open(): Promise<FileHandle> {
    const { path, end } = this.#split;
    const file = await open(path, 'r');
    const { size } = await file.stat();
    if (size < end) {
      await file.close();
      throw new MillraceError(
        'IO',
        `${path} has become shorter (${size} bytes, ${end} when listed)`,
      );
    }
    return file;
  }
}
