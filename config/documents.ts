/** Renders the table of options as the shipped file and as the reference page; run by bin/docs.ts. */
import { environmentName } from './load.js';
import { allOptions, type Option } from './options.js';

/** Groups by the first part of the key, in the order of the table. */
function groups(): Map<string, Option<unknown>[]> {
  const found = new Map<string, Option<unknown>[]>();
  for (const option of allOptions) {
    const name = option.key.slice(0, option.key.indexOf('.'));
    found.set(name, [...(found.get(name) ?? []), option]);
  }
  return found;
}

const wrapAt = 98;

function wrapComment(text: string): string[] {
  const lines = ['#'];
  for (const word of text.split(' ')) {
    const last = lines.length - 1;
    const longer = `${lines[last] ?? ''} ${word}`;
    if (longer.length > wrapAt) lines.push(`# ${word}`);
    else lines[last] = longer;
  }
  return lines;
}

/** config/millrace.yaml: every key with its default, commented out, so that a value's source stays "default". */
export function renderYaml(): string {
  const lines = [
    '# Options of Millrace. A line without its leading "#" sets the option; the value shown is the default.',
    '# Later sources win: this file, environment variables (MILLRACE_REST_PORT), arguments (-D rest.port=8082).',
    '# Generated from config/options.ts by `npm run docs`.',
  ];
  for (const [name, members] of groups()) {
    lines.push('', `# ${name} ${'-'.repeat(wrapAt - name.length - 3)}`);
    for (const { key, type, default: fallback, doc } of members) {
      lines.push('', ...wrapComment(`${doc} (${type.name})`));
      lines.push(`#${key}: ${type.format(fallback)}`.trimEnd());
    }
  }
  return `${lines.join('\n')}\n`;
}

/** docs/reference/configuration.md */
export function renderMarkdown(): string {
  const lines = [
    '# Configuration',
    '',
    'Generated from `config/options.ts` by `npm run docs`.',
    '',
    'Sources, each winning over the ones before: the defaults below; a YAML file (`--config FILE`, else the file',
    'named by `MILLRACE_CONF_FILE`, else `config/millrace.yaml` in the current folder), with keys dotted or nested;',
    `environment variables, named after the key (\`rest.bind-address\` is \`${environmentName('rest.bind-address')}\`);`,
    'arguments `-D key=value`. An unknown key, an ill-typed value or a contradiction stops the process with exit',
    'code 2 and a message that names every problem with its file, line and column.',
    '',
    'Durations take `ms`, `s`, `min`, `h`, `d` (a bare number is milliseconds); sizes take `b`, `kb`, `mb`, `gb` in',
    'powers of 1024 (a bare number is bytes); lists are separated by commas or are YAML sequences.',
  ];
  for (const [name, members] of groups()) {
    lines.push('', `## ${name}`, '', '| key | type | default | meaning |', '|---|---|---|---|');
    for (const { key, type, default: fallback, doc } of members) {
      const text = type.format(fallback);
      const shown = text === '' ? '(unset)' : `\`${text}\``;
      const kind = type.name.replace(/\|/g, '\\|');
      lines.push(`| \`${key}\` | ${kind} | ${shown} | ${doc.replace(/\|/g, '\\|')} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}
