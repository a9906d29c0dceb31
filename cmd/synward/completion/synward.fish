# fish completion for synward: the program itself knows its commands and flags.
function __synward_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] complete -- $words[2..-1] 2>/dev/null
end
complete -c synward -f -a '(__synward_complete)'
complete -c synward -l config -r -F -d 'configuration file'
