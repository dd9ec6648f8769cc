import type { JobManagerId } from '../base/ids.js';
import { unfencedEpoch } from '../rpc/rpc-service.js';
import type { LeaderInfo, LeaderRetrieval } from '../../ha/services.js';

/** Without high availability: the one JobManager at the configured address always leads. */
export function staticLeaderRetrieval(rpcAddress: string): LeaderRetrieval {
  const leader: LeaderInfo = {
    epoch: unfencedEpoch,
    jobManagerId: rpcAddress as JobManagerId,
    rpcAddress,
    restAddress: '',
    state: 'ACTIVE',
    since: 0,
  };
  return {
    current: () => leader,
    subscribe: (listener) => {
      listener(leader);
      return () => undefined;
    },
    close: () => Promise.resolve(),
  };
}
