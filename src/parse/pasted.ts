/** What people's terminals and hands leave in a dump that they paste. */

/** What a shell says before and between commands: `user@n1:~$ sudo nft list ruleset`, and what sudo asks. */
export const PROMPT =
  /^(\[?[\w.-]+@[\w.-]+[^#$>{}]*[#$>](\s|$)|[#$>] ?(sudo |nft |ip6?tables|ipset |ipvsadm |$)|(sudo )?nft (-\w+ )*list |\[sudo\] password)/

const LEFT_OUT =
  /^\W*(\.{2,}|…|(snip|snipped|cut|omitted|truncated|left out)\b)\W*$|^#?\s*(\.{3}|…).*\b(omitted|snip(ped)?|truncated|left out|removed|skipped)\b/i
/** Nobody writes more to say so. */
const LONGEST = 200

/** Whoever posted the dump made it shorter: `...`, `<snip>`, `# ... many other services omitted ...`. */
export const isLeftOut = (line: string): boolean => line.length <= LONGEST && LEFT_OUT.test(line)
