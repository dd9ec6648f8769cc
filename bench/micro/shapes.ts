/** The kinds of records that cross an exchange. */
import { bid, checkOfBid, checkOfTrade, trade, type Bid, type Trade } from '../jobs/records.js';

export interface RecordKind {
  make(i: number, keys: number): object;
  keyOf(record: unknown): number;
  check(record: unknown): number;
  /** How many of the last records the consumer keeps. */
  readonly kept: number;
}

const kinds: Readonly<Record<string, RecordKind>> = {
  trade: {
    make: trade,
    keyOf: (record) => (record as Trade).key,
    check: (record) => checkOfTrade(record as Trade),
    kept: 1,
  },
  bid: {
    make: bid,
    keyOf: (record) => (record as Bid).auction,
    check: (record) => checkOfBid(record as Bid),
    kept: 256,
  },
};

export function kindOf(shape: string): RecordKind {
  const found = kinds[shape];
  if (found === undefined) throw new RangeError(`no kind of record ${shape}`);
  return found;
}
