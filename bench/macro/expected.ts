/** What a job must have emitted, computed by a plain loop over the same records. */
import {
  bid,
  checkOfBid,
  checkOfSized,
  checkOfTrade,
  order,
  scrambledKey,
  sizedRecords,
  trade,
} from '../jobs/records.js';

export interface Totals {
  readonly count: number;
  readonly sum: number;
  readonly check: number;
}

/** `step` answers the check of record i, or -1 for a record that is not emitted. */
function countByKey(
  records: number,
  keys: number,
  keyOf: (i: number) => number,
  step: (i: number) => number,
): Totals {
  const counts = new Int32Array(keys);
  let [count, sum, check] = [0, 0, 0];
  for (let i = 0; i < records; i += 1) {
    const one = step(i);
    if (one < 0) continue;
    const key = keyOf(i);
    const n = (counts[key] ?? 0) + 1;
    counts[key] = n;
    count += 1;
    sum += n;
    check += one;
  }
  return { count, sum, check };
}

/** By job and variant; the totals over all subtasks, whatever the order between them. */
export function expectedTotals(
  job: string,
  variant: string | undefined,
  records: number,
  keys: number,
): Totals {
  const keyOf = (i: number): number => scrambledKey(i, keys);
  switch (job) {
    case 'chain':
      return countByKey(records, keys, keyOf, (i) =>
        i % 10 === 0 ? -1 : order(i, keys).price * 2,
      );
    case 'window':
      return { count: records, sum: records, check: 0 };
    case 'words': {
      const sums = new Float64Array(keys);
      return countByKey(records, keys, keyOf, (i) => {
        const key = keyOf(i);
        const sum = (sums[key] ?? 0) + (i % 1000);
        sums[key] = sum;
        return sum & 1;
      });
    }
    case 'exchange': {
      if (variant === 'bid')
        return countByKey(records, keys, keyOf, (i) => checkOfBid(bid(i, keys)));
      if (variant === 'trade')
        return countByKey(records, keys, keyOf, (i) => checkOfTrade(trade(i, keys)));
      const sized = sizedRecords(Number(variant));
      return countByKey(records, keys, keyOf, (i) => checkOfSized(sized(i, keys)));
    }
    default:
      throw new RangeError(`nobody knows what ${job} emits`);
  }
}
