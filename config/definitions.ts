/** Settings given as -D key=value. Apart from load.ts, which needs a YAML parser that clients have no use for. */
import {
  buildConfiguration,
  type ConfigProblem,
  type Configuration,
  type Setting,
} from './configuration.js';

/** Throws ConfigError with every problem. */
export function configurationOfDefinitions(definitions: readonly string[]): Configuration {
  const problems: ConfigProblem[] = [];
  return buildConfiguration(readDefinitions(definitions, problems), problems);
}

export function readDefinitions(
  definitions: readonly string[],
  problems: ConfigProblem[],
): Setting[] {
  return definitions.flatMap((definition) => {
    const at = definition.indexOf('=');
    const where = `-D ${definition}`;
    if (at > 0) {
      const key = definition.slice(0, at).trim();
      return [{ key, text: definition.slice(at + 1), source: 'argument' as const, where }];
    }
    problems.push({ where, message: 'expected key=value' });
    return [];
  });
}
