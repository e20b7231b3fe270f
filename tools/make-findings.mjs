// Writes docs/findings.md, the page that each finding links to, from the code: node tools/make-findings.mjs [--check]
import {readFileSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {CODES} from '../dist/checks/codes.js'
import {fixFor} from '../dist/checks/fix.js'
import {LOOKS} from '../dist/checks/looks.js'

const page = Object.entries(CODES)
  .sort(([, a], [, b]) => a.code.localeCompare(b.code))
  .flatMap(([name, {code, severity, title, meaning, found, fix}]) => [
    `## ${code}`,
    '',
    `**${name}** (${severity}): ${title}`,
    '',
    meaning,
    '',
    `- found: ${found}`,
    ...Object.entries(LOOKS[name]).map(([mode, text]) => `- looks${mode === 'any' ? '' : ` (${mode})`}: ${text}`),
    `- fix: ${fixFor(fix)}`,
    '',
  ])
const text = ['# Findings', '', 'What `kubectl svc-trace explain CODE` prints, on one page; made by `node tools/make-findings.mjs`.', '', ...page].join('\n')
const file = join(dirname(fileURLToPath(import.meta.url)), '../docs/findings.md')
if (process.argv.includes('--check')) process.exit(text === readFileSync(file, 'utf8') ? 0 : 1)
writeFileSync(file, text)
