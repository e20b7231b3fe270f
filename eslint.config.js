import js from '@eslint/js'
import tseslint from 'typescript-eslint'

export default tseslint.config(
  {ignores: ['dist/', 'node_modules/', 'coverage/', 'examples/', 'tools/', 'bin/']},
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: {allowDefaultProject: ['eslint.config.js']},
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        {allowNumber: true, allowBoolean: true, allowNullish: true, allow: [{name: ['bigint'], from: 'lib'}]},
      ],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-unused-vars': ['error', {argsIgnorePattern: '^_', varsIgnorePattern: '^_'}],
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unified-signatures': 'off',
      'no-control-regex': 'off',
      // nft's JSON values are strings, numbers or objects; String() of them is meant
      '@typescript-eslint/no-base-to-string': 'off',
      'max-params': ['error', 4],
      'max-lines-per-function': ['error', 50],
    },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts', 'tools/**', '*.js'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: {parserOptions: {projectService: false}},
    rules: {'max-lines-per-function': 'off', '@typescript-eslint/no-unused-expressions': 'off'},
  },
)
