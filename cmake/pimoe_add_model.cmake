# Compiles a model as a part of the build:
#
#   pimoe_add_model(<target> MODEL <file or folder>
#                   [TARGET <cpu>]          x86-64-v3, x86-64-v4, native (default), ...
#                   [QUANTIZE <how>]        none (default), bf16, ...
#                   [ENTRY <name>]          only this entry
#                   [SYMBOL <name>]         name of header and functions (default: <target>)
#                   [OPTIONS <option>...]   more options of pimoec
#                   [DEPENDS <file>...])    more files that the model reads
#
# <target> is a static library of the model's code, runtime and weights; whoever links to it finds
# <SYMBOL>.h. A relative MODEL is sought from the current source folder. The library is made anew when
# pimoec, the model, a file beside it that its name says is its data (model.onnx.data, model.onnx_data,
# model.data), a file of a checkpoint's folder or one of DEPENDS changes.
function(pimoe_add_model target)
  cmake_parse_arguments(PARSE_ARGV 1 M "" "MODEL;TARGET;QUANTIZE;ENTRY;SYMBOL" "OPTIONS;DEPENDS")
  if(M_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "pimoe_add_model(${target}): what is ${M_UNPARSED_ARGUMENTS}?")
  endif()
  if(M_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "pimoe_add_model(${target}): no value for ${M_KEYWORDS_MISSING_VALUES}")
  endif()
  if(NOT M_MODEL)
    message(FATAL_ERROR "pimoe_add_model(${target}): MODEL is missing")
  endif()
  get_filename_component(model ${M_MODEL} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  if(NOT M_SYMBOL)
    set(M_SYMBOL ${target})
  endif()
  if(NOT M_SYMBOL MATCHES "^[A-Za-z_][A-Za-z0-9_]*$")
    message(FATAL_ERROR "pimoe_add_model(${target}): ${M_SYMBOL} is no name in C; choose one with SYMBOL")
  endif()

  set(inputs ${model})
  if(IS_DIRECTORY ${model})
    file(GLOB inputs CONFIGURE_DEPENDS ${model}/*.json ${model}/*.safetensors)
  else()
    get_filename_component(folder ${model} DIRECTORY)
    get_filename_component(name ${model} NAME_WLE)
    file(GLOB data CONFIGURE_DEPENDS ${model}.data ${model}_data ${folder}/${name}.data)
    list(APPEND inputs ${data})
  endif()
  foreach(file ${M_DEPENDS})
    get_filename_component(file ${file} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
    list(APPEND inputs ${file})
  endforeach()

  set(out ${CMAKE_CURRENT_BINARY_DIR}/pimoe/${target})
  file(MAKE_DIRECTORY ${out})
  set(library ${out}/lib${M_SYMBOL}.a)
  set(options --quiet --symbol=${M_SYMBOL})
  foreach(name TARGET QUANTIZE ENTRY)
    if(M_${name})
      string(TOLOWER ${name} option)
      list(APPEND options --${option}=${M_${name}})
    endif()
  endforeach()
  add_custom_command(OUTPUT ${library} ${out}/${M_SYMBOL}.h
    COMMAND pimoe::pimoec ${model} --emit=lib -o ${library} ${options} ${M_OPTIONS}
    DEPENDS ${inputs} $<TARGET_FILE:pimoe::pimoec>
    COMMENT "Compiling model ${M_MODEL}" VERBATIM)
  add_custom_target(${target}_compile DEPENDS ${library} ${out}/${M_SYMBOL}.h)

  add_library(${target} STATIC IMPORTED GLOBAL)
  add_dependencies(${target} ${target}_compile)
  set_target_properties(${target} PROPERTIES
    IMPORTED_LOCATION ${library}
    INTERFACE_INCLUDE_DIRECTORIES ${out}
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
endfunction()
