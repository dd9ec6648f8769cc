/** The lines that begin in [start, end) of a file. */
export interface FileSplit {
  readonly id: string;
  /** Ascending in the order in which splits are handed out. */
  readonly index: number;
  readonly path: string;
  readonly start: number;
  readonly end: number;
  /** Offset of the next line to emit; absent while none was emitted. */
  readonly position?: number;
}
