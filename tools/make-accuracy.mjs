// Writes the list of modelled matches, targets, statements and expressions into docs/accuracy.md, from the code.
import {readFileSync, writeFileSync} from 'node:fs'
import {join, dirname} from 'node:path'
import {fileURLToPath} from 'node:url'
import {MATCHES} from '../dist/dataplane/iptables-matches.js'
import {TARGETS, UNMODELLED_TARGETS} from '../dist/dataplane/iptables-targets.js'
import {STATEMENTS} from '../dist/dataplane/nft-program.js'
import {EXPRESSIONS} from '../dist/dataplane/nft-values.js'

const excused = JSON.parse(readFileSync(join(dirname(fileURLToPath(import.meta.url)), '../test/kernel/not-generated.json'), 'utf8'))
const options = (module) => (typeof module === 'function' ? '' : ` (${Object.keys(module).map((name) => `--${name}`).join(' ')})`)
const list = [
  '### iptables matches', '', ...Object.entries(MATCHES).map(([name, module]) => `- \`-m ${name}\`${options(module)}`), '',
  '### iptables targets', '', Object.keys(TARGETS).map((name) => `\`${name}\``).join(', '), '', `Not modelled, so unknown once they match: ${UNMODELLED_TARGETS.map((name) => `\`${name}\``).join(', ')}, and every other target.`, '',
  '### nftables statements', '', Object.keys(STATEMENTS).map((name) => `\`${name}\``).join(', '), '',
  '### nftables expressions', '', Object.keys(EXPRESSIONS).map((name) => `\`${name}\``).join(', '), '',
  '### Not drawn by the kernel oracles', '', 'Everything else above is drawn at random by `test/kernel` (netfilter) or `test/kernel/ipvs` (IPVS), in IPv4 and IPv6.', '', ...Object.entries(excused).map(([name, why]) => `- \`${name}\`: ${why}`), '',
].join('\n')
const file = join(dirname(fileURLToPath(import.meta.url)), '../docs/accuracy.md')
const text = readFileSync(file, 'utf8').replace(/<!-- begin generated -->[\s\S]*<!-- end generated -->/, () => `<!-- begin generated -->\n${list}\n<!-- end generated -->`)
if (process.argv.includes('--check')) process.exit(text === readFileSync(file, 'utf8') ? 0 : 1)
writeFileSync(file, text)
