/** What a CPU profile says, in a few lines. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly samples?: readonly number[];
}

/** The functions with most time of their own, of every profile in the directory. */
export function summarizeProfiles(directory: string, count = 15): string {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.cpuprofile'))
    .map((name) => {
      const path = join(directory, name);
      const profile = JSON.parse(readFileSync(path, 'utf8')) as CpuProfile;
      return `${path}\n${topFunctions(profile, count).join('\n')}`;
    })
    .join('\n');
}

function topFunctions({ nodes, samples = [] }: CpuProfile, count: number): string[] {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, describe(callFrame)]));
  const hits = new Map<string, number>();
  for (const id of samples) {
    const name = names.get(id) ?? '?';
    hits.set(name, (hits.get(name) ?? 0) + 1);
  }
  return [...hits]
    .sort(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, n]) => `  ${((100 * n) / samples.length).toFixed(1).padStart(5)} %  ${name}`);
}

function describe(frame: CpuProfile['nodes'][number]['callFrame']): string {
  const place = frame.url.replace(/^.*\/build\//, '').replace(/^(file:)?\/.*\//, '');
  const name = frame.functionName === '' ? '(anonymous)' : frame.functionName;
  return place === '' ? name : `${name} ${place}:${String(frame.lineNumber + 1)}`;
}
