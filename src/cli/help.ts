import {Help as OclifHelp} from '@oclif/core/help'

/** Root help that shows the bare form first: `kubectl svc-trace NAME`. */
export default class Help extends OclifHelp {
  override formatRoot(): string {
    const {bin, pjson} = this.config
    return [
      pjson.description ?? '',
      this.section('USAGE', [`$ ${bin} NAME [flags]`, `$ ${bin} COMMAND [flags]`].join('\n')),
      this.section(
        'EXAMPLES',
        [
          `$ ${bin} web -n prod`,
          `$ ${bin} svc/web --from external -o wide`,
          `$ ${bin} check -A`,
          `$ ${bin} web --snapshot incident.tar.gz`,
        ].join('\n'),
      ),
      this.section(
        'EXIT CODES',
        [
          '0 healthy · 1 findings at or above --fail-on · 2 wrong usage, unreadable input or API failure',
          '3 incomplete: something could not be read or decided · 70 a bug · 130 interrupted',
        ].join('\n'),
      ),
    ].join('\n\n')
  }
}
