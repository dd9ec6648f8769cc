/** What bench/failover tells its job, as JSON in its first argument. */
export interface TakeoverArguments {
  readonly recordsPerSecond: number;
  /** A multiple of the parallelism, so that a key comes from one subtask of the source only. */
  readonly keys: number;
  /** Characters in each key's state. */
  readonly bytesPerKey: number;
  /** Directory of the committed lines. */
  readonly out: string;
  /** Directory of the times at which records reached the sink. */
  readonly stamps: string;
}

export function takeoverArguments(): TakeoverArguments {
  return JSON.parse(process.argv[2] ?? '{}') as TakeoverArguments;
}
