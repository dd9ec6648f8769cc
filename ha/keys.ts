/**
 * The only builder of keys. P = `/millrace/v1/<cluster id>`, all of a cluster lies under it:
 *
 *     P/cluster                  uid and era, created once
 *     P/election/<jm>-<nonce>    † candidate queue; create revision = epoch's revision
 *     P/leader                   † address and state of the leader
 *     P/jobs/<job>/spec          name, desired state, submission
 *     P/jobs/<job>/graph         inline or where it is stored
 *     P/jobs/<job>/exec          attempts, recorded before they are deployed
 *     P/jobs/<job>/ckptctr       first checkpoint id that is not handed out yet
 *     P/jobs/<job>/ckpt/<id>     pointers of completed checkpoints; the highest id is the latest
 *     P/jobs/<job>/gc/<id>       subsumed pointers whose files are not deleted yet
 *     P/jobs/<job>/history       checkpoint statistics and exceptions, for people
 *     P/results/<job>            terminal fact
 *     P/takeovers                the last takeovers, for people
 *     P/import                   while an import is under way: the cluster must not be started
 *     P/tms/<tm>                 † registration
 *
 * † under the owner's lease. An administrator reads it all with `etcdctl get --prefix P/`.
 */
import { MillraceError } from '../lib/base/errors.js';
import type { JobId, JobManagerId, TaskManagerId } from '../lib/base/ids.js';

/** All clusters of a store. */
export const clustersPrefix = '/millrace/v1/';

const clusterIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Digits of the largest signed 64-bit integer: ids sort as text as they do as numbers. */
const idDigits = 19;

export class Keys {
  readonly root: string;
  readonly cluster: string;
  readonly candidatesPrefix: string;
  readonly leader: string;
  readonly jobsPrefix: string;
  readonly resultsPrefix: string;
  readonly taskManagersPrefix: string;
  readonly takeovers: string;
  readonly importMarker: string;

  /** CONFIG for a cluster id that is not 1-64 letters, digits, `.`, `_`, `-`, beginning with a letter or digit. */
  constructor(clusterId: string) {
    if (!clusterIdPattern.test(clusterId)) {
      throw new MillraceError(
        'CONFIG',
        `the cluster id "${clusterId}" is not usable: use 1-64 letters, digits, dots, dashes and underscores, beginning with a letter or digit`,
      );
    }
    this.root = `${clustersPrefix}${clusterId}/`;
    this.cluster = `${this.root}cluster`;
    this.candidatesPrefix = `${this.root}election/`;
    this.leader = `${this.root}leader`;
    this.jobsPrefix = `${this.root}jobs/`;
    this.resultsPrefix = `${this.root}results/`;
    this.taskManagersPrefix = `${this.root}tms/`;
    this.takeovers = `${this.root}takeovers`;
    this.importMarker = `${this.root}import`;
  }

  candidate(jobManagerId: JobManagerId, nonce: string): string {
    return `${this.candidatesPrefix}${encodeSegment(jobManagerId)}-${nonce}`;
  }

  jobPrefix(jobId: JobId): string {
    return `${this.jobsPrefix}${jobId}/`;
  }

  spec(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}spec`;
  }

  graph(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}graph`;
  }

  execution(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}exec`;
  }

  checkpointId(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}ckptctr`;
  }

  checkpointsPrefix(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}ckpt/`;
  }

  checkpoint(jobId: JobId, checkpointId: number): string {
    return this.checkpointsPrefix(jobId) + formatId(checkpointId);
  }

  garbagePrefix(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}gc/`;
  }

  garbage(jobId: JobId, checkpointId: number): string {
    return this.garbagePrefix(jobId) + formatId(checkpointId);
  }

  history(jobId: JobId): string {
    return `${this.jobPrefix(jobId)}history`;
  }

  result(jobId: JobId): string {
    return this.resultsPrefix + jobId;
  }

  taskManager(taskManagerId: TaskManagerId): string {
    return this.taskManagersPrefix + encodeSegment(taskManagerId);
  }

  /** The job whose spec this key is, `undefined` for any other key. */
  parseSpec(key: string): JobId | undefined {
    if (!key.startsWith(this.jobsPrefix) || !key.endsWith('/spec')) return undefined;
    const id = key.slice(this.jobsPrefix.length, -'/spec'.length);
    return id.includes('/') ? undefined : (id as JobId);
  }
}

function formatId(id: number): string {
  return String(id).padStart(idDigits, '0');
}

/** Ids contain host names; keys are ASCII without slashes. */
function encodeSegment(text: string): string {
  return encodeURIComponent(text);
}
