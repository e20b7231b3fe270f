import type {Command} from '@oclif/core'

const NO_FILES = ':4'

/** Answers kubectl's `kubectl_complete-svc_trace`: the words so far in, choices and a directive out. */
export async function complete(words: readonly string[], commands: readonly Command.Loadable[]): Promise<string[]> {
  const unfinished = words.at(-1) ?? ''
  const before = words.slice(0, -1)
  const command = commands.find(({id}) => before.includes(id)) ?? commands.find(({id}) => id === 'trace')
  const choices = unfinished.startsWith('-')
    ? Object.entries(command?.flags ?? {}).map(([name, flag]) => [`--${name}`, flag.description ?? ''])
    : [
        ...(before.length === 0
          ? commands.filter(({hidden}) => !hidden).map(({id, summary}) => [id, summary ?? ''])
          : []),
        ...(await liveChoices(before)),
      ]
  return [...choices.filter(([choice]) => choice!.startsWith(unfinished)).map((pair) => pair.join('\t')), NO_FILES]
}

/** Names of namespaces, nodes and Services of the live cluster; nothing when it does not answer at once. */
async function liveChoices(before: readonly string[]): Promise<string[][]> {
  const {liveNames} = await import('./live-names.js')
  return liveNames(before)
}
